#!/usr/bin/env bash
# The Python environment .venv: what requirements/{dev,build,docs}.txt say, by hash, and Knoll itself in editable form.
set -euo pipefail
cd "$(dirname "$0")/.."
. scripts/lib.sh

make_venv() {
  # An environment whose interpreter is gone (an upgrade, a moved folder) cannot be mended.
  .venv/bin/python -c 'import sys' 2>/dev/null || rm -rf .venv
  [ -d .venv ] || python3 -m venv .venv || return
  .venv/bin/python -m pip --version 2>/dev/null || .venv/bin/python -m ensurepip
}

pip() { .venv/bin/python -m pip install --disable-pip-version-check --no-input "$@"; }

say 'Python environment in .venv'
scripts/tools.sh python
timed 'environment' make_venv
timed 'what the lock says' pip --require-hashes -r requirements/dev.txt -r requirements/build.txt -r requirements/docs.txt
# Without a compiler, armed instances stay off; `knoll doctor` reports that.
if can_install; then scripts/tools.sh compiler; fi
timed 'programs of armed instances' .venv/bin/python autoscaler/runtime/docker/programs/build.py || true
timed 'Knoll itself, editable' pip --no-deps --no-index --no-build-isolation --editable .
