#!/usr/bin/env bash
# Builds the HTTP/2 library ngh2, with the libnghttp2 that it contains, from source with AddressSanitizer and UBSan, and
# runs the tests of floods, random input and RFC 9113 with it. Any report ends the run.
# usage: scripts/sanitizers.sh [ARGUMENTS OF pytest]     HYPOTHESIS_PROFILE=deep for forty times as much random input
set -euo pipefail
cd "$(dirname "$0")/.."
. scripts/lib.sh

work=.knoll/sanitizers
python=$PWD/.venv/bin/python
flags='-fsanitize=address,undefined -fno-sanitize-recover=undefined -fno-omit-frame-pointer -g -O1'

pip() { "$python" -m pip install --disable-pip-version-check --no-input --require-hashes "$@"; }

# The lines of the lock that are about ngh2: its version, and the hashes of its packages.
locked() { awk '/^[^ #]/ {own = /^ngh2==/} own' requirements/dev.txt; }

build() {
  rm -rf "$work"
  mkdir -p "$work"
  locked >"$work/ngh2.txt"
  pip --target "$work/tools" -r requirements/sanitizers.txt || return
  PYTHONPATH=$PWD/$work/tools PATH=$PWD/$work/tools/bin:$PATH CFLAGS=$flags LDFLAGS=$flags \
    pip --target "$work/ngh2" --no-deps --no-build-isolation --no-cache-dir --no-binary ngh2 -r "$work/ngh2.txt" || return
  cp "$work/ngh2.txt" "$work/built"
}

scripts/tools.sh compiler
say 'ngh2 with sanitizers'
cmp -s <(locked) "$work/built" || timed 'build from the source package' build

preload=$(cc -print-file-name=libasan.so):$(cc -print-file-name=libubsan.so)
# Leaks are not detected, because Python keeps objects until it ends. Its own allocator would hide reads of freed memory.
sanitized() {
  LD_PRELOAD=$preload PYTHONMALLOC=malloc PYTHONPATH=$work/ngh2:platform:. \
    ASAN_OPTIONS=detect_leaks=0:abort_on_error=0 UBSAN_OPTIONS=print_stacktrace=1 "$python" "$@"
}
# shellcheck disable=SC2016 # Python
sanitized -c 'import ngh2, sys; sys.exit("sanitizers" not in ngh2.__file__)' || die 'another ngh2 than the built one is imported'
[ $# -gt 0 ] || set -- tests/component/activator/test_fuzz.py tests/component/activator/test_floods.py \
  tests/component/activator/test_rfc9113.py tests/component/activator/test_rfc9113_sent.py \
  tests/unit/activator/wire/test_http2_codecs.py
sanitized -m pytest --quiet -p no:cacheprovider -k 'not h2 or ngh2' "$@"
