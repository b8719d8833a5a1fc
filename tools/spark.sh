#!/usr/bin/env bash
# The Python in which the benchmarks run Spark Structured Streaming: heavy, and apart from the one that tests use. Needs
# Java 17 or later. Prints the path of its interpreter.
set -euo pipefail

here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
command -v java >/dev/null || { echo "tools/spark.sh: java is not installed (17 or later)" >&2; exit 1; }
exec "$here/venv.sh" venv-spark "$here/requirements-spark.txt"
