#!/usr/bin/env bash
# The S3 server that tests and benchmarks run against: MinIO, built by Go from its module. Prints the path of the binary.
# Installs Go by the package manager where it is missing; where the server cannot be had it says why and fails, and the
# tests skip.
#
#   WATERSHED_MINIO="$(tools/minio.sh)" cargo test --release --package watershed minio
set -euo pipefail

version=v0.0.0-20260212201848-7aac2a2c5b7c
cache=${WATERSHED_CACHE:-$HOME/.cache/watershed}
binary=$cache/minio/$version/minio

if [ -x "$binary" ]; then
    echo "$binary"
    exit
fi
mkdir -p "$cache/minio"
# Two callers at once would build it twice. Where there is no flock, as on macOS, they do.
if command -v flock >/dev/null; then
    exec 9>"$cache/minio/lock"
    flock 9
fi
if [ ! -x "$binary" ]; then
    if ! command -v go >/dev/null && command -v apt-get >/dev/null && [ "$(id -u)" = 0 ]; then
        { apt-get update && apt-get install --yes --no-install-recommends golang-go; } >&2
    fi
    command -v go >/dev/null || { echo "tools/minio.sh: Go is not installed (1.24 or later, or 1.21 with a module proxy)" >&2; exit 1; }
    # An older Go fetches the toolchain that the module asks for; a newer one builds it itself. Nothing is left in the
    # user's own Go folders but the modules' cache.
    build=$(mktemp -d "$cache/minio/build.XXXXXX")
    trap 'rm -rf "$build"' EXIT
    echo "tools/minio.sh: building MinIO $version (some minutes)" >&2
    GOTOOLCHAIN=auto GOFLAGS= GOBIN=$build CGO_ENABLED=0 \
        nice go install -trimpath -ldflags '-s -w' "github.com/minio/minio@$version" >&2
    mkdir -p "$cache/minio/$version"
    mv "$build/minio" "$binary"
fi
echo "$binary"
