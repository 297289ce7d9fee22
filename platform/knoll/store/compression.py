"""JSON as it is kept in memory, for thousands of objects that are seldom looked at: a sixth of its size.

Objects of a kind differ in names, times and uids and little else, so the first of a kind is the dictionary that the
others are compressed with. What was squeezed can be expanded in this process alone.
"""

import zlib

MAX_DICTIONARY_BYTES = 4096
"""Bytes of a dictionary: each use of it begins with reading it."""

_RAW = -zlib.MAX_WBITS
_FIRST: dict[str, bytes] = {}


def compress(kind: str, data: bytes) -> bytes:
    """Args: kind: names what is alike. data: at least a byte."""
    packer = zlib.compressobj(1, zlib.DEFLATED, _RAW, zdict=_FIRST.setdefault(kind, data[:MAX_DICTIONARY_BYTES]))
    return packer.compress(data) + packer.flush()


def decompress(kind: str, data: bytes) -> bytes:
    """What was `squeezed` as of this kind."""
    return zlib.decompressobj(_RAW, zdict=_FIRST[kind]).decompress(data)
