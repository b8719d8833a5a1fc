#!/usr/bin/env bash
# Makes, or finds, a Python environment with exactly the packages of one requirements file, and prints the path of its
# interpreter. Nothing is done when the environment already holds them: a stamp keeps the hash of what was installed.
#
#   tools/venv.sh NAME REQUIREMENTS      # -> ${WATERSHED_CACHE:-$HOME/.cache/watershed}/NAME/bin/python
set -euo pipefail

name=${1:?usage: tools/venv.sh NAME REQUIREMENTS}
requirements=${2:?usage: tools/venv.sh NAME REQUIREMENTS}
venv=${WATERSHED_CACHE:-$HOME/.cache/watershed}/$name
python=${PYTHON:-python3}

command -v "$python" >/dev/null || { echo "tools/venv.sh: $python (3.11 or later) is not installed" >&2; exit 1; }
"$python" -c 'import sys; sys.exit(sys.version_info < (3, 11))' \
    || { echo "tools/venv.sh: $("$python" --version) is too old; 3.11 or later is needed (set PYTHON)" >&2; exit 1; }

mkdir -p "$venv"
# Two callers at once would install over each other. Where there is no flock, as on macOS, they are on their own.
if command -v flock >/dev/null; then
    exec 9>"$venv.lock"
    flock 9
fi

stamp=$("$python" --version | cat - "$requirements" | cksum)
if [ "$(cat "$venv/stamp" 2>/dev/null || true)" != "$stamp" ]; then
    rm -f "$venv/stamp"
    "$python" -m venv --clear "$venv" >&2
    "$venv/bin/python" -m pip install --quiet --disable-pip-version-check --requirement "$requirements" >&2
    echo "$stamp" >"$venv/stamp"
fi
echo "$venv/bin/python"
