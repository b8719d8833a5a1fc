#!/usr/bin/env bash
# The Python in which tests read Watershed's tables with DuckDB's Delta extension. Prints the path of its interpreter.
#
#   WATERSHED_DUCKDB="$(tools/duckdb.sh)" cargo test --release --package watershed readers
set -euo pipefail

here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
exec "$here/venv.sh" venv-duckdb "$here/requirements-duckdb.txt"
