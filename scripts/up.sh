#!/usr/bin/env bash
# Start the platform with Compose and wait until every process is healthy.
set -euo pipefail
cd "$(dirname "$0")/.."
. scripts/lib.sh

PLATFORM=${KNOLL_PLATFORM:-knoll}
NETWORK=$PLATFORM-instances

# A network of that name which Compose did not make (the same platform ran on the host before) would stop Compose.
remove_foreign_network() {
  local owner
  owner=$(docker network inspect --format '{{index .Labels "com.docker.compose.project"}}' "$NETWORK" 2>/dev/null) || return 0
  [ "$owner" != "$PLATFORM" ] || return 0
  note "removing the network $NETWORK, which Compose did not make"
  docker network rm "$NETWORK" >/dev/null || die "$NETWORK is in use by something else: end \`knoll up\` first"
}

# The network's addresses are settled when it is made. With others than are wanted now (KNOLL_INSTANCE_PREFIX changed,
# or an earlier release made it) it has to be made anew, and what is on it too; objects and uploads stay.
remake_network_of_other_addresses() {
  local subnet wanted=${KNOLL_INSTANCE_PREFIX:-10.201}.0.0/16 instances
  subnet=$(docker network inspect --format '{{range .IPAM.Config}}{{.Subnet}}{{end}}' "$NETWORK" 2>/dev/null) || return 0
  [ "$subnet" != "$wanted" ] || return 0
  note "$NETWORK has the addresses $subnet and not $wanted: making it anew, instances start again"
  docker compose down --remove-orphans >/dev/null 2>&1
  mapfile -t instances < <(docker ps --all --quiet --filter "label=knoll.dev/platform=$PLATFORM")
  [ "${#instances[@]}" -eq 0 ] || docker rm --force --volumes "${instances[@]}" >/dev/null
  docker network rm "$NETWORK" >/dev/null 2>&1 || ! docker network inspect "$NETWORK" >/dev/null 2>&1 ||
    die "$NETWORK is in use by something else: see \`docker network inspect $NETWORK\`"
}

export_build_settings
say 'Starting the platform'
remove_foreign_network
remake_network_of_other_addresses
if ! timed 'docker compose up --wait' docker compose up --detach --wait --wait-timeout 120 --remove-orphans; then
  docker compose ps --all >&2
  docker compose logs --no-color --tail 20 >&2
  note "should it say that pools overlap: set KNOLL_INSTANCE_PREFIX to free addresses, such as 10.77"
  die 'the platform did not become healthy; its state and the end of its logs are above'
fi
note "services  http://NAME.NAMESPACE.localhost:$KNOLL_HTTP_PORT"
note "API       http://127.0.0.1:$KNOLL_API_PORT     kubectl --server http://127.0.0.1:$KNOLL_API_PORT get ksvc"
