#!/usr/bin/env bash
# usage: scripts/step.sh LABEL COMMAND...     run a command quietly, and say how long it took or why it failed
set -euo pipefail
. "$(dirname "$0")/lib.sh"
say "$1"
timed "$@"
