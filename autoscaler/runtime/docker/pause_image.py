"""The sandbox's image, created here byte by byte, without registry, build or compiler. Pure.

It contains three static ELF programs, two of under 300 bytes and one of 2 000. `/pause` sleeps forever in the kernel.
`/swap [FROM TO]... "" [PATH]...` renames, then removes files and empty folders, which no call of the engine can do in a
volume. Its exit code is the error number of the first rename that fails, 0 otherwise.
`/net` lists listening sockets in the sandbox's network namespace and forwards to them; its source is net_program.c.
"""

import base64
import io
import struct
import tarfile

from autoscaler.runtime.docker import net_program

VERSION = "4"
REFERENCE = f"knoll/pause:{VERSION}"
"""Raise `VERSION` with any change of the image's content."""

SWAP, NET = "/swap", "/net"

_BASE = 0x400000
_X86_64 = bytes.fromhex(
    "b822000000"  # mov eax, 34     pause(2): sleep until a signal
    "0f05"  #       syscall
    "ebf7"  #       jmp back to the mov
)
_AARCH64 = b"".join(
    struct.pack("<I", instruction)
    for instruction in (
        0xD2800928,  # mov x8, #73     ppoll(2): this architecture has no pause
        0xD2800000,  # mov x0, #0      no descriptors,
        0xD2800001,  # mov x1, #0      none of them,
        0xD2800002,  # mov x2, #0      without a time limit,
        0xD2800003,  # mov x3, #0      with the signal mask as it is
        0xD4000001,  # svc #0
        0x17FFFFFA,  # b   back to the first
    )
)
_SWAP_X86_64 = bytes.fromhex(
    "488d5c2410"  # lea rbx, [rsp+16]   the first argument (above it: their number, the program's name)
    "488b3b"  # rename: mov rdi, [rbx]
    "4885ff"  #     test rdi, rdi
    "7436"  #       jz done
    "803f00"  #     cmp byte [rdi], 0
    "7415"  #       je removals
    "488b7308"  #   mov rsi, [rbx+8]
    "4883c310"  #   add rbx, 16
    "b852000000"  # mov eax, 82         rename(2)
    "0f05"  #       syscall
    "85c0"  #       test eax, eax
    "74e0"  #       jz rename
    "eb1e"  #       jmp end
    "4883c308"  # removals: add rbx, 8
    "488b3b"  #     mov rdi, [rbx]
    "4885ff"  #     test rdi, rdi
    "7410"  #       jz done
    "b857000000"  # mov eax, 87         unlink(2)
    "0f05"  #       syscall
    "b854000000"  # mov eax, 84         rmdir(2): one of the two fits
    "0f05"  #       syscall
    "ebe4"  #       jmp removals
    "31c0"  # done: xor eax, eax
    "89c7"  # end:  mov edi, eax
    "f7df"  #       neg edi
    "b83c000000"  # mov eax, 60         exit(2)
    "0f05"  #       syscall
)
_SWAP_AARCH64 = b"".join(
    struct.pack("<I", instruction)
    for instruction in (
        0x910043F4,  # add x20, sp, #16
        0xF9400281,  # rename: ldr x1, [x20]
        0xB40002A1,  # cbz x1, done
        0x39400024,  # ldrb w4, [x1]
        0x34000124,  # cbz w4, removals
        0xF9400683,  # ldr x3, [x20, #8]
        0x91004294,  # add x20, x20, #16
        0x92800C60,  # mov x0, #-100    relative to the working folder, twice
        0x92800C62,  # mov x2, #-100
        0xD28004C8,  # mov x8, #38      renameat(2)
        0xD4000001,  # svc #0
        0xB4FFFEC0,  # cbz x0, rename
        0x1400000C,  # b end
        0xF8408E81,  # removals: ldr x1, [x20, #8]!
        0xB4000121,  # cbz x1, done
        0x92800C60,  # mov x0, #-100
        0xD2800002,  # mov x2, #0
        0xD2800468,  # mov x8, #35      unlinkat(2)
        0xD4000001,  # svc #0
        0x92800C60,  # mov x0, #-100
        0xD2804002,  # mov x2, #0x200   AT_REMOVEDIR
        0xD4000001,  # svc #0
        0x17FFFFF7,  # b removals
        0xD2800000,  # done: mov x0, #0
        0xCB0003E0,  # end: neg x0, x0
        0xD2800BA8,  # mov x8, #93      exit(2)
        0xD4000001,  # svc #0
    )
)
_MACHINES = {"amd64": 62, "arm64": 183}
"""Architecture, as images name it, to ELF machine number."""
_PROGRAMS = {
    "pause": {"amd64": _X86_64, "arm64": _AARCH64},
    "swap": {"amd64": _SWAP_X86_64, "arm64": _SWAP_AARCH64},
    "net": {architecture: base64.b64decode(code) for architecture, code in net_program.CODE.items()},
}


def program(architecture: str, name: str = "pause") -> bytes:
    """Return the executable: ELF header (64 bytes), one program header (56), the code.

    Args:
        architecture: `amd64` or `arm64`.
        name: `pause`, `swap` or `net`.

    Raises:
        KeyError: another architecture.
    """
    machine, code = _MACHINES[architecture], _PROGRAMS[name][architecture]
    size = 64 + 56 + len(code)
    ident = b"\x7fELF" + bytes((2, 1, 1, 0)) + bytes(8)  # 64 bit, little endian, version 1, System V
    header = struct.pack("<HHIQQQIHHHHHH", 2, machine, 1, _BASE + 120, 64, 0, 0, 64, 56, 1, 0, 0, 0)
    load = struct.pack("<IIQQQQQQ", 1, 5, 0, _BASE, _BASE, size, size, 0x10000)  # one segment, read and execute
    return ident + header + load + code


def layer(architecture: str) -> bytes:
    """Return the image's only layer as a tar archive of the programs, the same bytes each time."""
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w", format=tarfile.USTAR_FORMAT) as archive:
        for name in _PROGRAMS:
            content = program(architecture, name)
            member = tarfile.TarInfo(name)
            member.size, member.mode = len(content), 0o755
            archive.addfile(member, io.BytesIO(content))
    return buffer.getvalue()


USER = "65535:65535"
LABEL = "knoll.dev/pause"
CHANGES = ('ENTRYPOINT ["/pause"]', f"USER {USER}", f"LABEL {LABEL}={VERSION}")
"""The image's configuration, as lines of a Dockerfile for an image import."""
