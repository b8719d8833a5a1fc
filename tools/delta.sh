#!/usr/bin/env bash
# The Python in which tests have Spark write Delta tables: pyspark, with Delta's jars beside Spark's own. Prints the path of
# its interpreter; where it cannot be had (no Java, no Maven, no network) it says why and fails, and the tests skip.
#
#   WATERSHED_SPARK="$(tools/delta.sh)" cargo test --release --package watershed spark
set -euo pipefail

here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
cache=${WATERSHED_CACHE:-$HOME/.cache/watershed}/delta-jars
command -v java >/dev/null || { echo "tools/delta.sh: java is not installed (17 or later)" >&2; exit 1; }

# Artifacts of Maven Central, and what they hash to.
jars="
io.delta:delta-spark_4.1_2.13:4.1.0 9b05d7a82196ee1f1073733a45a2faae59161e52b86ae918fe6742fad6eaf036
io.delta:delta-storage:4.1.0 6d0520ffcc35b582369f92c23fa24e14a5bb935cf6e31ed7f47c5046ae17cb25
"

python=$("$here/venv.sh" venv-delta "$here/requirements-delta.txt")
spark_jars=$("$python" -c 'import pyspark, os; print(os.path.join(os.path.dirname(pyspark.__file__), "jars"))')
mkdir -p "$cache"
while read -r artifact hash; do
    [ -n "$artifact" ] || continue
    IFS=: read -r _ name version <<<"$artifact"
    jar=$name-$version.jar
    [ -e "$spark_jars/$jar" ] && continue
    if ! echo "$hash  $cache/$jar" | sha256sum --check --status 2>/dev/null; then
        command -v mvn >/dev/null || { echo "tools/delta.sh: mvn is not installed" >&2; exit 1; }
        mvn --quiet --batch-mode dependency:copy "-Dartifact=$artifact" "-DoutputDirectory=$cache" >&2
        echo "$hash  $cache/$jar" | sha256sum --check --quiet >&2
    fi
    cp "$cache/$jar" "$spark_jars/$jar.part"
    mv "$spark_jars/$jar.part" "$spark_jars/$jar"
done <<<"$jars"
echo "$python"
