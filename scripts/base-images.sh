#!/usr/bin/env bash
# The base images that this repository's Dockerfiles and compose.yaml name, on this machine's Docker.
# usage: scripts/base-images.sh [IMAGE...]     without arguments: every image the repository names
#
# An image that is there already is kept. One that can be pulled is pulled. Where no registry answers (an
# air-gapped machine, a company network) a stand-in with the very same tag is made from Debian packages, from
# the mirror that this machine's apt uses, so that the Dockerfiles need no second version.
#   KNOLL_PULL_TIMEOUT    seconds that a pull may take before it counts as failed; default 120
#   KNOLL_PULL=never      make stand-ins without trying to pull
#   KNOLL_DEBIAN_MIRROR   where to fetch Debian packages from; default: what apt uses (needed on Ubuntu)
# shellcheck disable=SC2016 # backquotes in messages, awk's own variables
set -euo pipefail
cd "$(dirname "$0")"
. ./lib.sh

SUITE=$NEWER_SUITE
DEBIAN=knoll-standin/debian:$SUITE
BUNDLE=/etc/ssl/certs/ca-certificates.crt
PULL_TIMEOUT=${KNOLL_PULL_TIMEOUT:-120}
RECIPES=$PWD/standins

present() { docker image inspect "$1" >/dev/null 2>&1; }

# Every image that a Dockerfile starts from or compose.yaml runs, but not the stages and images made here.
named_images() {
  local root=$PWD/..
  {
    find "$root" -name .venv -prune -o -name node_modules -prune -o -path "$RECIPES" -prune -o -name 'Dockerfile*' -type f -print0 |
      xargs -0 -r awk '
        FNR == 1 { delete stage }
        toupper($1) == "FROM" {
          image = $2; at = 3
          if (image ~ /^--/) { image = $3; at = 4 }
          if (!(tolower(image) in stage) && image != "scratch" && image !~ /\$/) print image
          if (toupper($at) == "AS") stage[tolower($(at + 1))] = 1
        }'
    [ ! -f "$root/compose.yaml" ] || awk '$1 == "image:" && $2 !~ /^(knoll|\$)/ { print $2 }' "$root/compose.yaml"
  } | sort -u
}

pull() {
  [ "${KNOLL_PULL:-}" != never ] || return 1
  local began=$SECONDS
  if timeout "$PULL_TIMEOUT" docker pull -q "$1" >/dev/null 2>&1; then
    note "$1 pulled, $((SECONDS - began)) s"
  else
    note "$1 cannot be pulled ($((SECONDS - began)) s): making a stand-in from Debian packages"
    return 1
  fi
}

# Certificates that this machine trusts and Debian does not (a company's proxy): one file each, because
# update-ca-certificates leaves out files that hold several.
copy_own_certificates() {
  local root=$1
  [ -r "$BUNDLE" ] || return 0
  awk -v into="$root/usr/local/share/ca-certificates" '
    /-----BEGIN CERTIFICATE-----/ { text = "" }
    { text = text $0 "\n" }
    /-----END CERTIFICATE-----/ {
      if (NR == FNR) known[text] = 1
      else if (!(text in known)) { known[text] = 1; printf "%s", text > (into "/machine-" ++count ".crt") }
    }' "$root$BUNDLE" "$BUNDLE"
  chroot "$root" update-ca-certificates
}

debootstrap_and_import() {
  local root mirror
  mirror=${KNOLL_DEBIAN_MIRROR:-$(debian_uri)}
  root=$(mktemp -d)/root
  # shellcheck disable=SC2064 # the path of now
  trap "rm -rf --one-file-system '${root%/root}'" EXIT
  debootstrap --variant=minbase --include=ca-certificates "$SUITE" "$root" "${mirror%/}"
  copy_own_certificates "$root"
  printf '#!/bin/sh\nexit 101\n' >"$root/usr/sbin/policy-rc.d" # no service starts inside a build
  chmod +x "$root/usr/sbin/policy-rc.d"
  # As in the official images: no archives, caches, manuals and recommended packages in any layers.
  cat >"$root/etc/apt/apt.conf.d/50standin" <<'CONF'
APT::Install-Recommends "false";
Acquire::Languages "none";
Dir::Cache::pkgcache "";
Dir::Cache::srcpkgcache "";
DPkg::Post-Invoke { "rm -f /var/cache/apt/archives/*.deb"; };
CONF
  cat >"$root/etc/dpkg/dpkg.cfg.d/50standin" <<'CONF'
path-exclude /usr/share/doc/*
path-include /usr/share/doc/*/copyright
path-exclude /usr/share/man/*
path-exclude /usr/share/info/*
path-exclude /usr/share/locale/*
CONF
  rm -rf "$root"/var/cache/apt/* "$root"/var/lib/apt/lists/* "$root"/var/log/* \
    "$root"/usr/share/man/* "$root"/usr/share/info/* "$root"/usr/share/locale/*
  find "$root/usr/share/doc" ! -type d ! -name copyright -delete
  tar -C "$root" --numeric-owner -c . |
    docker import --change 'CMD ["bash"]' --change "ENV SSL_CERT_FILE=$BUNDLE" - "$DEBIAN"
}

make_debian() {
  present "$DEBIAN" && return
  can_install || [ "$(id -u)" -eq 0 ] || die 'stand-ins are made with debootstrap, which needs root: sudo make images'
  if ! have debootstrap; then
    can_install || die 'stand-ins need debootstrap; install it, or load the images from a file with `docker load`'
    apt_install debootstrap
  fi
  [ -n "${KNOLL_DEBIAN_MIRROR:-$(debian_uri)}" ] || die 'no Debian mirror is known here: set KNOLL_DEBIAN_MIRROR'
  timed "debootstrap $SUITE" bash -c "$(declare -f debootstrap_and_import copy_own_certificates debian_uri release_codename)
    set -euo pipefail; SUITE=$SUITE DEBIAN=$DEBIAN BUNDLE=$BUNDLE; debootstrap_and_import"
}

stand_in() {
  local image=$1 name=${1%%:*} recipe
  recipe=$RECIPES/${name##*/}.Dockerfile
  [ -f "$recipe" ] || die "$image cannot be pulled, and there is no recipe $recipe to make a stand-in from"
  make_debian
  local other others version=${image##*:}
  mapfile -t others < <(awk 'toupper($1) == "FROM" && $2 !~ /\$/ { print $2 }' "$recipe")
  for other in "${others[@]}"; do
    present "$other" || pull "$other" || (stand_in "$other")
  done
  timed "$image from $(basename "$recipe")" \
    docker buildx build --quiet --build-arg "BASE=$DEBIAN" --build-arg "VERSION=${version%-rootless}" --tag "$image" \
    --load --file "$recipe" "$RECIPES"
}

docker info >/dev/null 2>&1 || die 'Docker does not respond here: run scripts/engine.sh first'
if [ $# -eq 0 ]; then mapfile -t images < <(named_images); else images=("$@"); fi
say "Base images: ${images[*]}"
for image in "${images[@]}"; do
  if present "$image"; then
    note "$image is there"
  else
    pull "$image" || stand_in "$image"
  fi
done
