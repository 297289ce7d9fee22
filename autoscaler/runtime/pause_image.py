"""The sandbox's image, made here byte by byte: no registry, no build, no compiler is asked for it. Pure.

It holds one static ELF program of under 200 bytes which sleeps for ever in the kernel.
"""

import io
import struct
import tarfile

VERSION = "1"
REFERENCE = f"knoll/pause:{VERSION}"
"""Raise `VERSION` with any change to what is in the image."""

_BASE = 0x400000
_X86_64 = bytes.fromhex(
    "b822000000"  # mov eax, 34     pause(2): sleep until a signal
    "0f05"  #       syscall
    "ebf7"  #       jmp back to the mov
)
_AARCH64 = b"".join(
    struct.pack("<I", word)
    for word in (
        0xD2800928,  # mov x8, #73     ppoll(2): this architecture has no pause
        0xD2800000,  # mov x0, #0      no descriptors,
        0xD2800001,  # mov x1, #0      none of them,
        0xD2800002,  # mov x2, #0      without a time limit,
        0xD2800003,  # mov x3, #0      with the signal mask as it is
        0xD4000001,  # svc #0
        0x17FFFFFA,  # b   back to the first
    )
)
_MACHINES = {"amd64": (62, _X86_64), "arm64": (183, _AARCH64)}
"""Architecture in the words of images, to ELF machine number and program."""


def program(architecture: str) -> bytes:
    """The executable: ELF header (64 bytes), one program header (56), the code.

    Args:
        architecture: `amd64` or `arm64`.

    Raises:
        KeyError: another architecture.
    """
    machine, code = _MACHINES[architecture]
    size = 64 + 56 + len(code)
    ident = b"\x7fELF" + bytes((2, 1, 1, 0)) + bytes(8)  # 64 bit, little endian, version 1, System V
    header = struct.pack("<HHIQQQIHHHHHH", 2, machine, 1, _BASE + 120, 64, 0, 0, 64, 56, 1, 0, 0, 0)
    load = struct.pack("<IIQQQQQQ", 1, 5, 0, _BASE, _BASE, size, size, 0x10000)  # one segment, read and execute
    return ident + header + load + code


def layer(architecture: str) -> bytes:
    """The image's only layer as a tar archive: `/pause`, the same bytes each time."""
    buffer, content = io.BytesIO(), program(architecture)
    with tarfile.open(fileobj=buffer, mode="w", format=tarfile.USTAR_FORMAT) as archive:
        member = tarfile.TarInfo("pause")
        member.size, member.mode = len(content), 0o755
        archive.addfile(member, io.BytesIO(content))
    return buffer.getvalue()


CHANGES = ('ENTRYPOINT ["/pause"]', "USER 65535:65535", f"LABEL knoll.dev/pause={VERSION}")
"""The image's configuration, as lines of a Dockerfile, which an import takes."""
