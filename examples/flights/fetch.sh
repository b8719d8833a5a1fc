#!/usr/bin/env bash
# Fetches all three million flights (13 MB) out of the npm package vega-datasets, and checks that they are the ones that
# PROVENANCE.md describes.
#
#   examples/flights/fetch.sh TARGET.parquet
set -euo pipefail

target=${1:?usage: examples/flights/fetch.sh TARGET.parquet}
package=vega-datasets@3.2.1
checksum=dbeb920c90f59b6ccaff823dcc3d08f25a97fa1ce128d93f40be4e931f5900b0

command -v npm >/dev/null || { echo "examples/flights/fetch.sh: npm is not installed" >&2; exit 1; }
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT

archive=$(cd "$folder" && npm pack --silent "$package")
tar -xzf "$folder/$archive" -C "$folder" package/data/flights-3m.parquet
found=$(python3 -c 'import hashlib, sys; print(hashlib.sha256(open(sys.argv[1], "rb").read()).hexdigest())' \
    "$folder/package/data/flights-3m.parquet")
if [ "$found" != "$checksum" ]; then
    echo "examples/flights/fetch.sh: flights-3m.parquet of $package has SHA-256 $found, expected $checksum" >&2
    exit 1
fi
mkdir -p "$(dirname "$target")"
mv "$folder/package/data/flights-3m.parquet" "$target"
