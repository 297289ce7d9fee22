#!/usr/bin/env bash
# A running Docker Engine with Compose v2 and Buildx. Does nothing where there is one already.
# On Debian and Ubuntu, as root, it installs the distribution's own packages; elsewhere it says what to install.
set -euo pipefail
cd "$(dirname "$0")"
. ./lib.sh

SUITE=trixie # the first Debian release whose Compose is v2
LOG=/var/log/dockerd.log
SOCKET_DEADLINE=60

engine_answers() { docker info >/dev/null 2>&1; }
plugins_work() { docker compose version >/dev/null 2>&1 && docker buildx version >/dev/null 2>&1; }

explain_and_fail() {
  cat >&2 <<'TEXT'
Knoll needs Docker Engine 24 or later with the Compose v2 and Buildx plugins, and `docker info` does not work here.
  macOS, Windows   install Docker Desktop, start it, run this again
  Fedora, Arch, …  install the distribution's docker, docker-compose and docker-buildx packages, start the
                   service (systemctl enable --now docker), run this again
  Debian, Ubuntu   run this as root once (sudo make engine): it installs docker.io, Compose and Buildx
If Docker runs but not for you, add yourself to its group (sudo usermod -aG docker "$USER") and log in anew.
TEXT
  exit 1
}

# Debian before trixie: a second source, the machine's own one with another suite, pinned so low that
# nothing but what is asked for by name ever comes from it.
add_suite() {
  local uri source=/etc/apt/sources.list.d/knoll-$SUITE.sources pin=/etc/apt/preferences.d/knoll-$SUITE
  [ ! -e "$source" ] || return 0
  uri=$(debian_uri)
  [ -n "$uri" ] || die 'no Debian source for this release found in the configuration of apt (apt-get indextargets shows it)'
  note "adding the suite $SUITE as $source, pinned at priority 50"
  printf 'Package: *\nPin: release n=%s*\nPin-Priority: 50\n' "$SUITE" >"$pin"
  printf 'Types: deb\nURIs: %s\nSuites: %s\nComponents: main\nSigned-By: /usr/share/keyrings/debian-archive-keyring.gpg\n' \
    "${uri%/}" "$SUITE" >"$source"
  apt_update
}

wanted_packages() {
  have dockerd || printf 'docker.io iptables '
  if ! have docker && apt_has docker-cli; then printf 'docker-cli '; fi
  docker compose version >/dev/null 2>&1 || printf '%s ' "$1"
  docker buildx version >/dev/null 2>&1 || printf 'docker-buildx '
}

install_engine() {
  local packages from=()
  case $(distribution)-$(release_codename) in
    debian-buster | debian-bullseye | debian-bookworm)
      add_suite
      from=(-t "$SUITE")
      packages=$(wanted_packages docker-compose)
      ;;
    debian-*) packages=$(wanted_packages docker-compose) ;;
    *) packages=$(wanted_packages docker-compose-v2) ;;
  esac
  # shellcheck disable=SC2086 # a list of words
  [ -z "$packages" ] || apt_install "${from[@]}" $packages
}

start_engine() {
  if [ -d /run/systemd/system ]; then
    timed 'systemctl start docker' systemctl enable --now docker
  else
    note "no systemd here: starting dockerd as a daemon of its own, log in $LOG"
    setsid --fork dockerd >>"$LOG" 2>&1 </dev/null
  fi
  wait_for "$SOCKET_DEADLINE" engine_answers && return
  printf 'error: Docker Engine did not answer within %d s. The end of its log:\n' "$SOCKET_DEADLINE" >&2
  if [ -d /run/systemd/system ]; then journalctl -u docker -n 30 --no-pager >&2; else tail -n 30 "$LOG" >&2; fi
  exit 1
}

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
