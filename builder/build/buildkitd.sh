#!/bin/sh
# Starts BuildKit's daemon for Knoll, without root, inside its own container; arguments go to buildkitd.
#   KNOLL_BUILD_CACHE_BYTES   bound of the cache, least recently used first; 0 is none
#   KNOLL_BUILD_FRONTENDS     repositories of images that `# syntax=` may name, separated by commas; default none
set -eu

# BuildKit leaves loopback addresses out of what steps get as /etc/resolv.conf, and Docker's resolver is one. The
# servers that Docker asks are in a comment of the file: `# ExtServers: [host(10.0.0.2) 10.0.0.3]`.
nameservers=$(sed -n 's/^# ExtServers: \[\(.*\)\]$/\1/p' /etc/resolv.conf | tr ' ' '\n' |
  sed 's/^host(\(.*\))$/\1/' | grep -v -e '^127\.' -e '^::1$' -e '^$' | sed 's/.*/"&"/' | paste -s -d , -) || true
frontends=$(printf %s "${KNOLL_BUILD_FRONTENDS:-}" | tr ',' '\n' | sed '/^ *$/d; s/^ *\(.*[^ ]\) *$/"\1"/' | paste -s -d , -)

config=$TMPDIR/buildkitd.toml
{
  if [ "${KNOLL_BUILD_CACHE_BYTES:-0}" -gt 0 ]; then
    printf '[worker.oci]\ngc = true\n[[worker.oci.gcpolicy]]\nall = true\nmaxUsedSpace = %s\n' "$KNOLL_BUILD_CACHE_BYTES"
  fi
  # Only the built-in frontend: `# syntax=` would run any image with the rights of the daemon.
  if [ -n "$frontends" ]; then
    printf '[frontend."gateway.v0"]\nenabled = true\nallowedRepositories = [%s]\n' "$frontends"
  else
    printf '[frontend."gateway.v0"]\nenabled = false\n'
  fi
  if [ -n "$nameservers" ]; then printf '[dns]\nnameservers = [%s]\n' "$nameservers"; fi
  printf '[history]\nmaxEntries = 20\n'
} >"$config"
# Any user may connect who can enter the folder, which only the builder (another user) can.
socket=$XDG_RUNTIME_DIR/buildkit/buildkitd.sock
rm -f "$socket"
(
  until [ -S "$socket" ]; do sleep 0.1; done
  chmod 0711 "$XDG_RUNTIME_DIR" "${socket%/*}"
  chmod 0666 "$socket"
) &
# The daemon listens only on a Unix socket. Steps share its network, but cannot reach the socket.
exec rootlesskit buildkitd --config "$config" --oci-worker-net=host "$@"
