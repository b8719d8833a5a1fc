#!/usr/bin/env bash
# What Spark needs to read Kafka, from Maven Central, for the Spark of tools/delta.sh (the newest Spark of the benchmarks has
# no such package there). Prints the path of the folder of the jars; where they cannot be had (no Maven, no network) it says
# why and fails.
#
#   "$(tools/delta.sh)" reads.py --jars "$(tools/spark-kafka.sh)"     # spark.driver.extraClassPath = JARS/*
set -euo pipefail

version=4.1.1
cache=${WATERSHED_CACHE:-$HOME/.cache/watershed}/spark-kafka
folder=$cache/$version

# Artifacts of Maven Central, and what they hash to: all that pyspark does not bring.
jars="
org.apache.spark:spark-sql-kafka-0-10_2.13:4.1.1 9c1ce986f548e6b1dcb0e2dfe2f253a0bc58f2232a32a0c9c6c674dd25a8570c
org.apache.spark:spark-token-provider-kafka-0-10_2.13:4.1.1 e510adc37b03d01d0a190d0dab472b5538e05eaa77454f7e9477156d7a6820ae
org.apache.kafka:kafka-clients:3.9.1 7568b998572d256f0b7bc0afdc1b7a2588b8b08415c62ce314c864a6851ae9d9
org.apache.commons:commons-pool2:2.12.1 5273c8bc8c0dca2211175c0d27efbd7228efae99689aac001a8e1ef8e872e9ef
"

if [ -d "$folder" ]; then
    echo "$folder"
    exit
fi
mkdir -p "$cache"
# Two callers at once would fetch it twice. Where there is no flock, as on macOS, they do.
if command -v flock >/dev/null; then
    exec 9>"$cache/lock"
    flock 9
fi
if [ ! -d "$folder" ]; then
    command -v mvn >/dev/null || { echo "tools/spark-kafka.sh: mvn is not installed" >&2; exit 1; }
    fetched=$(mktemp -d "$cache/fetch.XXXXXX")
    trap 'rm -rf "$fetched"' EXIT
    while read -r artifact hash; do
        [ -n "$artifact" ] || continue
        IFS=: read -r _ name of <<<"$artifact"
        mvn --quiet --batch-mode dependency:copy "-Dartifact=$artifact" "-DoutputDirectory=$fetched/jars" >&2
        echo "$hash  $fetched/jars/$name-$of.jar" | sha256sum --check --strict --quiet >&2
    done <<<"$jars"
    mv "$fetched/jars" "$folder"
fi
echo "$folder"
