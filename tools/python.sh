#!/usr/bin/env bash
# The Python in which tests and benchmarks read Watershed's tables with other engines (DuckDB, delta-rs, Polars). Prints
# the path of its interpreter:
#
#   "$(tools/python.sh)" benchmarks/run.py
set -euo pipefail

here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
exec "$here/venv.sh" venv "$here/requirements.txt"
