#!/bin/bash
# usage: healthz HOST PORT     succeeds when GET /healthz answers 200
# Bash and nothing else: it runs every few seconds in every container, and starting Python costs 50 times as much.
exec 3<>"/dev/tcp/$1/$2" || exit 1
printf 'GET /healthz HTTP/1.1\r\nHost: %s:%s\r\nConnection: close\r\n\r\n' "$1" "$2" >&3
read -r -t 3 _ status _ <&3 && [ "$status" = 200 ]
