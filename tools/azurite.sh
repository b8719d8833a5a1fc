#!/usr/bin/env bash
# The Azure server that a test runs against: Azurite, from npm. Prints the path of its blob server.
#
#   WATERSHED_AZURITE="$(tools/azurite.sh)" cargo test --release --package watershed azurite
set -euo pipefail

version=3.37.0
folder=${WATERSHED_CACHE:-$HOME/.cache/watershed}/azurite/$version
binary=$folder/node_modules/.bin/azurite-blob
if [ ! -e "$folder/done" ]; then
    command -v npm >/dev/null || { echo "tools/azurite.sh: npm is not installed (Node.js 20 or later)" >&2; exit 1; }
    mkdir -p "$folder"
    npm install --silent --no-audit --no-fund --ignore-scripts --prefix "$folder" "azurite@$version" >&2
    touch "$folder/done"
fi
echo "$binary"
