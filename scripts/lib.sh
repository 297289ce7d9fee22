# Shared by the set-up scripts; sourced, never run. Bash.
# shellcheck shell=bash disable=SC2016

export DEBIAN_FRONTEND="${DEBIAN_FRONTEND:-noninteractive}"

say() { printf '==> %s\n' "$*"; }
note() { printf '    %s\n' "$*"; }
die() {
  printf 'error: %s\n' "$*" >&2
  exit 1
}

have() { command -v "$1" >/dev/null 2>&1; }

# timed LABEL COMMAND...: run a step, and print how many seconds it took. Its output is shown only when it
# fails, and then only the end.
timed() {
  local label=$1 log status=0 began=$SECONDS
  shift
  log=$(mktemp)
  printf '    %s … ' "$label"
  "$@" >"$log" 2>&1 </dev/null || status=$?
  if [ "$status" -eq 0 ]; then
    printf '%d s\n' "$((SECONDS - began))"
  else
    printf 'failed after %d s\n' "$((SECONDS - began))"
    tail -n 40 "$log" >&2
  fi
  rm -f "$log"
  return "$status"
}

# The word for the machine's distribution: debian, ubuntu, or whatever os-release says.
distribution() { (. /etc/os-release 2>/dev/null && printf '%s' "${ID:-unknown}") || uname -s; }
release_codename() { (. /etc/os-release 2>/dev/null && printf '%s' "${VERSION_CODENAME:-}"); }

# Whether this script may install packages itself.
can_install() {
  have apt-get && [ "$(id -u)" -eq 0 ] && case $(distribution) in debian | ubuntu) true ;; *) false ;; esac
}


apt_updated=
apt_update() {
  [ -z "$apt_updated" ] || return 0
  timed 'apt-get update' apt-get update -q
  apt_updated=yes
}

# apt_install [-t SUITE] PACKAGE...: install what is missing. The package lists are fetched only when the
# first try fails, because that costs more than everything else here on a machine that has them.
apt_install() {
  local suite=()
  if [ "$1" = -t ]; then
    suite=(-t "$2")
    shift 2
  fi
  local command=(apt-get install -qy --no-install-recommends -o Dpkg::Options::=--force-confold "${suite[@]}" "$@")
  local label="apt-get install ${suite[*]} $*"
  if [ -z "$apt_updated" ]; then
    "${command[@]}" --dry-run >/dev/null 2>&1 || apt_update
  fi
  if [ -n "$apt_updated" ]; then
    timed "$label" "${command[@]}"
  else
    timed "$label" "${command[@]}" || { apt_update && timed "$label" "${command[@]}"; }
  fi
}

# What a build inside a container cannot know by itself: where this machine gets Python packages from, and whom it
# trusts (compose.yaml hands both on). Settings that are there already stay.
export_build_settings() {
  local index bundle=/etc/ssl/certs/ca-certificates.crt
  if [ -z "${PIP_INDEX_URL:-}" ] && [ -x .venv/bin/python ]; then
    index=$(.venv/bin/python -m pip config get global.index-url 2>/dev/null) && export PIP_INDEX_URL=$index
  fi
  if [ -z "${KNOLL_CA_BUNDLE:-}" ] && [ -r "$bundle" ]; then export KNOLL_CA_BUNDLE=$bundle; fi
}

# The URI that this machine fetches its own Debian release from, whatever notation its sources are in.
debian_uri() {
  local own
  own=$(release_codename)
  apt-get indextargets --format '$(CREATED_BY)|$(RELEASE)|$(COMPONENT)|$(REPO_URI)' |
    awk -F'|' -v own="$own" '$1 == "Packages" && $3 == "main" && ($2 == own || $2 ~ /^(stable|testing|unstable|sid)$/) { print $4; exit }'
}

# wait_for SECONDS COMMAND...: until the command succeeds, or the time is over.
wait_for() {
  local deadline=$((SECONDS + $1))
  shift
  until "$@" >/dev/null 2>&1; do
    [ "$SECONDS" -lt "$deadline" ] || return 1
    sleep 0.1
  done
}

# The first Debian release with Compose v2, Redis 8 and kubectl. Older ones get it as a second source: their own
# one with another suite, pinned so low that nothing but what is asked for by name ever comes from it.
NEWER_SUITE=trixie
NEWER_SOURCE=/etc/apt/sources.list.d/knoll-$NEWER_SUITE.sources
add_newer_suite() {
  local uri source=$NEWER_SOURCE pin=/etc/apt/preferences.d/knoll-$NEWER_SUITE
  [ ! -e "$source" ] || return 0
  uri=$(debian_uri)
  [ -n "$uri" ] || die 'no Debian source for this release found in the configuration of apt (see apt-get indextargets)'
  note "adding the suite $NEWER_SUITE as $source, pinned at priority 50"
  printf 'Package: *\nPin: release n=%s*\nPin-Priority: 50\n' "$NEWER_SUITE" >"$pin"
  printf 'Types: deb\nURIs: %s\nSuites: %s\nComponents: main\nSigned-By: /usr/share/keyrings/debian-archive-keyring.gpg\n' \
    "${uri%/}" "$NEWER_SUITE" >"$source"
  apt_update
}

# apt_install_newer PACKAGE...: from this release where it is trixie or later, else from trixie.
apt_install_newer() {
  case $(distribution)-$(release_codename) in
    debian-buster | debian-bullseye | debian-bookworm) add_newer_suite ;;
  esac
  # The source says it, not the release: what comes from the newer suite may bring that suite's name along (base-files).
  if [ -e "$NEWER_SOURCE" ]; then
    apt_install -t "$NEWER_SUITE" "$@"
  else
    apt_install "$@"
  fi
}
