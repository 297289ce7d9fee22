#!/usr/bin/env bash
# Programs that Knoll's processes, tests and benchmarks run on the host. Does nothing for what is there already.
# usage: scripts/tools.sh [redis|dnsmasq|nftables|python|kubectl|registry|chromium|qemu|compiler|bench]...
#   redis     redis-server: the embedded Redis of `knoll up`, and the tests
#   dnsmasq   dnsmasq: cluster-local names in the instances of `knoll up`, and the tests
#   nftables  nft: keeps the instances of `knoll up` apart, and the tests
#   python    Python 3.11 or later that can make virtual environments
#   kubectl   the tests with a real kubectl
#   registry  docker-registry: the tests with a real registry
#   chromium  the tests with a real browser
#   qemu      an emulator of the other architecture and a compiler for it: the tests of the containers' programs
#   compiler  gcc: the first program of armed instances
#   bench     nginx, wrk, h2load and curl: what Knoll is measured against, and with
# shellcheck disable=SC2016 # backquotes in messages
set -euo pipefail
cd "$(dirname "$0")"
. ./lib.sh

# need PROGRAM WHY INSTALLER PACKAGE...
need() {
  local program=$1 why=$2 installer=$3
  shift 3
  have "$program" && return
  can_install || die "$why needs \`$program\`, which is not on PATH. Install it (package: $*) and run this again"
  say "$why needs $program: installing $*"
  "$installer" "$@"
  have "$program" || die "\`$program\` is not on PATH after $* was installed"
}

python_works() { python3 -c 'import sys, venv, ensurepip; sys.exit(sys.version_info < (3, 11))' 2>/dev/null; }

# Not whether it may list tables, which needs root: whether it lives through it.
nft_works() {
  local code=0
  have nft || return
  nft list tables >/dev/null 2>&1 || code=$?
  [ "$code" -lt 128 ]
}

tool() {
  case $1 in
    redis) need redis-server 'The embedded Redis' apt_install redis-server ;;
    registry) need docker-registry 'Testing with a real registry' apt_install docker-registry ;;
    dnsmasq) need dnsmasq 'Names inside instances' apt_install dnsmasq-base ;;
    nftables)
      # One that is older than the engine's iptables crashes on its rules: both come from one suite.
      nft_works && return
      can_install || die 'Keeping instances apart needs `nft`, of no older release than the installed iptables'
      say 'Keeping instances apart needs nft: installing nftables'
      apt_install_newer nftables
      nft_works || die '`nft list tables` does not run after nftables was installed'
      ;;
    chromium) need chromium 'Testing with a real browser' apt_install chromium ;;
    qemu)
      case $(uname -m) in
        aarch64)
          need qemu-x86_64-static "Testing the sandbox's programs" apt_install qemu-user-static
          need x86_64-linux-gnu-gcc 'Testing the first program of armed instances' apt_install gcc-x86-64-linux-gnu
          ;;
        *)
          need qemu-aarch64-static "Testing the sandbox's programs" apt_install qemu-user-static
          need aarch64-linux-gnu-gcc 'Testing the first program of armed instances' apt_install gcc-aarch64-linux-gnu
          ;;
      esac
      ;;
    compiler) have cc || need gcc 'Compiling the first program of armed instances' apt_install gcc ;;
    bench)
      need nginx 'The benchmark' apt_install nginx-light
      need wrk 'The benchmark' apt_install wrk
      need h2load 'The benchmark' apt_install nghttp2-client
      need curl 'The benchmark' apt_install curl
      ;;
    python)
      python_works && return
      can_install || die 'Python 3.11 or later with its venv module is needed as `python3`. Install it and run this again'
      say 'Python with its venv module is missing: installing it'
      apt_install python3 python3-venv
      python_works || die "Python 3.11 or later is needed, and this release has $(python3 --version 2>&1)"
      ;;
    kubectl)
      if ! have kubectl && [ "$(distribution)" = ubuntu ]; then die 'kubectl is missing; Ubuntu has it as a snap: snap install kubectl --classic'; fi
      need kubectl 'Testing with the real client' apt_install_newer kubectl
      ;;
    *) die "no such tool: $1 (redis, dnsmasq, nftables, python, kubectl, registry, chromium, qemu, compiler, bench)" ;;
  esac
}

for name in "$@"; do tool "$name"; done
