#!/usr/bin/env bash
# The image `knoll`, which all processes run from.
set -euo pipefail
cd "$(dirname "$0")/.."
. scripts/lib.sh
export_build_settings
say 'Building the image knoll'
timed 'docker compose build' docker compose build
