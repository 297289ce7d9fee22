#!/usr/bin/env bash
# Regenerate requirements/*.txt: hashes, for every platform and Python from 3.11, and no word of where from.
# usage: scripts/lock.sh [--upgrade]
set -euo pipefail
cd "$(dirname "$0")/.."
python=${PYTHON:-.venv/bin/python}

compile() {
  local output=$1
  shift
  "$python" -m uv pip compile --quiet --universal --python-version 3.11 --generate-hashes \
    --no-emit-index-url --no-emit-find-links --no-header "$@" --output-file "requirements/$output"
}

compile runtime.txt "$@" pyproject.toml
compile dev.txt "$@" --constraint requirements/runtime.txt --extra dev pyproject.toml
compile build.txt "$@" --constraint requirements/dev.txt requirements/build.in
compile docs.txt "$@" --constraint requirements/dev.txt --constraint requirements/build.txt requirements/docs.in
compile sanitizers.txt "$@" --constraint requirements/dev.txt requirements/sanitizers.in
if grep -n '://' requirements/*.txt; then
  printf 'error: the lock names a host, see above\n' >&2
  exit 1
fi
