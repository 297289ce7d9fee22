#!/usr/bin/env bash
# A running Docker Engine with Compose v2 and Buildx. Does nothing where there is one already.
# On Debian and Ubuntu, as root, it installs the distribution's own packages; elsewhere it says what to install.
# usage: scripts/engine.sh          make sure that it runs
#        scripts/engine.sh stop     end the engine that this script started, and no other
set -euo pipefail
cd "$(dirname "$0")"
. ./lib.sh

LOG=/var/log/dockerd.log
STARTED=/run/knoll-dockerd # there while an engine runs that was started here
SOCKET_DEADLINE=60

engine_answers() { docker info >/dev/null 2>&1; }
plugins_work() { docker compose version >/dev/null 2>&1 && docker buildx version >/dev/null 2>&1; }

explain_and_fail() {
  cat >&2 <<'TEXT'
Knoll needs Docker Engine 25 or later with the Compose v2 and Buildx plugins, and `docker info` does not work here.
  macOS, Windows   install Docker Desktop, start it, run this again
  Fedora, Arch, …  install the distribution's docker, docker-compose and docker-buildx packages, start the
                   service (systemctl enable --now docker), run this again
  Debian, Ubuntu   run this as root once (sudo make engine): it installs docker.io, Compose and Buildx
If Docker runs but not for you, add yourself to its group (sudo usermod -aG docker "$USER") and log in anew.
TEXT
  exit 1
}

wanted_packages() {
  have dockerd || printf 'docker.io iptables '
  # Needed to pull. Not reinstalled where it exists: that would drop certificates that were added to the bundle.
  [ -e /etc/ssl/certs/ca-certificates.crt ] || printf 'ca-certificates '
  # Where the kernel has AppArmor on, the engine cannot start a container without its parser.
  if grep -qs Y /sys/module/apparmor/parameters/enabled && ! have apparmor_parser; then printf 'apparmor '; fi
  have docker || printf 'docker-cli '
  docker compose version >/dev/null 2>&1 || printf '%s ' "$1"
  docker buildx version >/dev/null 2>&1 || printf 'docker-buildx '
  printf '\n'
}

install_engine() {
  local packages
  case $(distribution) in
    debian) read -ra packages < <(wanted_packages docker-compose) ;;
    *) read -ra packages < <(wanted_packages docker-compose-v2 | sed 's/docker-cli//') ;; # its docker.io has the client
  esac
  apt_install_newer "${packages[@]}"
}

start_engine() {
  if [ -d /run/systemd/system ]; then
    timed 'systemctl start docker' systemctl enable --now docker
  else
    note "no systemd here: starting dockerd as a daemon of its own, log in $LOG"
    setsid --fork dockerd >>"$LOG" 2>&1 </dev/null
    : >"$STARTED"
  fi
  wait_for "$SOCKET_DEADLINE" engine_answers && return
  printf 'error: Docker Engine did not respond within %d s. The end of its log:\n' "$SOCKET_DEADLINE" >&2
  if [ -d /run/systemd/system ]; then journalctl -u docker -n 30 --no-pager >&2; else tail -n 30 "$LOG" >&2; fi
  exit 1
}

# A process that has ended counts as gone, also before its parent has reaped it.
engine_gone() { [ ! -d "/proc/$1" ] || grep -q '^State:[[:space:]]*Z' "/proc/$1/status"; }

stop_engine() {
  local pid
  [ -e "$STARTED" ] && pid=$(cat /var/run/docker.pid 2>/dev/null) || return 0
  say 'Stopping the Docker Engine that was started here'
  kill "$pid" 2>/dev/null || true
  wait_for 30 engine_gone "$pid" || die "dockerd (process $pid) did not end within 30 s"
  rm -f "$STARTED"
}

if [ "${1:-}" = stop ]; then
  stop_engine
  exit 0
fi
if engine_answers && plugins_work; then
  say "Docker Engine $(docker info --format '{{.ServerVersion}}') is running"
  exit 0
fi
can_install || explain_and_fail
if ! have dockerd || ! have docker || ! plugins_work; then
  say 'Docker Engine, Compose or Buildx is missing: installing it from the Debian packages of this machine'
  install_engine
  plugins_work || die 'docker compose and docker buildx do not work after their packages were installed'
fi
engine_answers || start_engine
say "Docker Engine $(docker info --format '{{.ServerVersion}}') is running"
