#!/usr/bin/env bash
# Compile autoscaler/runtime/docker/net_program.c for both architectures into autoscaler/runtime/docker/net_program.py.
# Needed after a change of the C source alone; what it writes is committed.
# usage: scripts/net_program.sh
set -euo pipefail
cd "$(dirname "$0")/.."
. scripts/lib.sh

source=autoscaler/runtime/docker/net_program.c target=autoscaler/runtime/docker/net_program.py
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT

# One segment without data of its own, at the address at which pause_image.program puts it.
cat >"$work/link.ld" <<'LINK'
SECTIONS {
  . = 0x400078;
  .text : { *(.text.start) *(.text*) *(.rodata*) *(.data*) *(.bss*) }
  /DISCARD/ : { *(.note*) *(.comment) *(.eh_frame*) }
}
LINK

# compile TRIPLET ARCHITECTURE
compile() {
  have "$1-gcc" || apt_install "gcc-${1//_/-}"
  "$1-gcc" -Os -Wall -Wextra -Werror -ffreestanding -fno-stack-protector -fno-pic -fno-asynchronous-unwind-tables \
    -fno-tree-loop-distribute-patterns -nostdlib -static -no-pie -Wl,--build-id=none -Wl,-T,"$work/link.ld" \
    -o "$work/$2.elf" "$source"
  "$1-objcopy" -O binary -j .text "$work/$2.elf" "$work/$2"
}

compile x86_64-linux-gnu amd64
compile aarch64-linux-gnu arm64

{
  printf '"""What scripts/net_program.sh compiled from net_program.c; machine code in base64. Do not edit."""\n\n'
  printf 'CODE = {\n'
  for architecture in amd64 arm64; do
    printf '    "%s": (\n' "$architecture"
    base64 -w 108 "$work/$architecture" | sed 's/.*/        "&"/'
    printf '    ),\n'
  done
  printf '}\n'
} >"$target"
note "$target: $(stat -c %s "$work/amd64") and $(stat -c %s "$work/arm64") bytes"
