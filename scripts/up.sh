#!/usr/bin/env bash
# Start the platform with Compose and wait until every process is healthy.
set -euo pipefail
cd "$(dirname "$0")/.."
. scripts/lib.sh

NETWORK=knoll-instances

# A network of that name which Compose did not make (the same platform ran on the host before) would stop Compose.
remove_foreign_network() {
  local owner
  owner=$(docker network inspect --format '{{index .Labels "com.docker.compose.project"}}' "$NETWORK" 2>/dev/null) || return 0
  [ "$owner" != knoll ] || return 0
  note "removing the network $NETWORK, which Compose did not make"
  docker network rm "$NETWORK" >/dev/null || die "$NETWORK is in use by something else: end \`knoll up\` first"
}

export_build_settings
say 'Starting the platform'
remove_foreign_network
if ! timed 'docker compose up --wait' docker compose up --detach --wait --wait-timeout 120 --remove-orphans; then
  docker compose ps --all >&2
  docker compose logs --no-color --tail 20 >&2
  die 'the platform did not become healthy; its state and the end of its logs are above'
fi
note "services  http://NAME.NAMESPACE.localhost:$KNOLL_HTTP_PORT"
note "API       http://127.0.0.1:$KNOLL_API_PORT     kubectl --server http://127.0.0.1:$KNOLL_API_PORT get ksvc"
