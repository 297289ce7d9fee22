#!/usr/bin/env bash
# Stop the platform and remove everything it made: processes, instances, networks and volumes. Images stay, and so does
# the build cache, which takes minutes to fill on a slow connection; `--build-cache` removes it too.
set -euo pipefail
cd "$(dirname "$0")/.."
. scripts/lib.sh

PLATFORM=${KNOLL_PLATFORM:-knoll}

if ! docker info >/dev/null 2>&1; then
  note 'Docker does not respond: nothing runs'
  exit 0
fi

# The processes end first, or the autoscaler would start again what is removed here.
remove_instances() {
  local instances
  mapfile -t instances < <(docker ps --all --quiet --filter "label=knoll.dev/platform=$PLATFORM")
  [ "${#instances[@]}" -eq 0 ] || docker rm --force --volumes "${instances[@]}"
}

# By the process that made them, which is stopped by now.
remove_rules() {
  docker image inspect "${KNOLL_IMAGE:-knoll}" >/dev/null 2>&1 || return 0
  docker compose run --rm --no-deps --quiet-pull firewall python -m knoll.firewall --remove
}

remove_networks() {
  local networks
  mapfile -t networks < <(docker network ls --quiet --filter "label=knoll.dev/platform=$PLATFORM")
  [ "${#networks[@]}" -eq 0 ] || docker network rm "${networks[@]}"
}

remove_volumes() {
  local project volumes
  project=$(docker compose config --format json | python3 -c 'import json, sys; print(json.load(sys.stdin)["name"])')
  mapfile -t volumes < <(docker volume ls --filter "label=com.docker.compose.project=$project" \
    --format '{{.Name}} {{.Label "com.docker.compose.volume"}}' |
    awk -v cache="${1:-}" '$2 != "buildkit" || cache == "--build-cache" { print $1 }')
  [ "${#volumes[@]}" -eq 0 ] || docker volume rm "${volumes[@]}"
}

# On the first of several machines: the Swarm's services that reserve places for instances.
remove_reservations() {
  local services
  mapfile -t services < <(docker service ls --quiet --filter "label=knoll.dev/platform=$PLATFORM" 2>/dev/null)
  [ "${#services[@]}" -eq 0 ] || docker service rm "${services[@]}"
}

say 'Stopping the platform'
timed 'processes' docker compose stop
timed 'reservations' remove_reservations
timed 'instances' remove_instances
timed 'firewall rules' remove_rules
timed 'docker compose down' docker compose down --remove-orphans
timed 'volumes' remove_volumes "$@"
timed 'networks' remove_networks
# The settings of before `knoll cluster init`: without its certificate, this machine is not a node any more.
if [ -e .env.single-machine ]; then
  mv .env.single-machine .env
  note '.env has the settings of a single machine again'
  note 'Docker is still in Swarm mode; if nothing else uses it: docker swarm leave --force'
fi
