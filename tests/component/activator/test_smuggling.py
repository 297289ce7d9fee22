"""No part of a request becomes another request: ambiguous body lengths, read at the instance by another parser."""

import itertools
import re

import httptools
import pytest

from tests.component.activator.pipes import Scene, turns
from tests.component.activator.stage import HOST

SMUGGLED = f"GET /smuggled HTTP/1.1\r\nHost: {HOST}\r\n\r\n".encode()

NAMES = [
    "Transfer-Encoding", "transfer-encoding", "TRANSFER-ENCODING", "Transfer_Encoding", "Transfer-Encoding ",
    "Transfer-Encoding\t", " Transfer-Encoding", "X: y\nTransfer-Encoding", "X: y\rTransfer-Encoding",
    "Transfer-Encoding\0", "\x0bTransfer-Encoding", "Transfer\u2010Encoding", "Transfer-Encoding:",
]  # fmt: skip
VALUES = [
    "chunked", "Chunked", " chunked ", "\tchunked", "\x0bchunked", "chunked\x0b", "chunked;q=1", '"chunked"',
    "xchunked", "chunked, identity", "identity, chunked", "gzip, chunked", "chunked, chunked", "chunked,", ",chunked",
    "", "cow", "\r\n chunked", "chunked\0", "c hunked", "identity",
]  # fmt: skip
LENGTHS = [
    "+5", "-5", "0x5", "5 5", "5, 5", "5,6", "05", "5\t", " 5", "5.0", "1e1", "5\x0b", "5\0", "",
    "99999999999999999999", "\u0665", "5;", "5_0",
]  # fmt: skip


class Reader:
    """What a lenient instance would take for requests."""

    def __init__(self) -> None:
        self.targets: list[bytes] = []
        self._parser = httptools.HttpRequestParser(self)

    def on_url(self, url: bytes) -> None:
        self.targets.append(url)

    def read(self, wire: bytes) -> list[bytes]:
        self._parser.feed_data(wire)
        return self.targets


async def reached(wire: bytes, cut: int) -> tuple[list[bytes], bytes]:
    """The targets of what the instance gets; and what the client gets."""
    scene = Scene()
    for at in range(0, len(wire), cut):
        scene.client.arrive(wire[at : at + cut])
        await turns(2)
    origins = [bytes(pipe.written) for pipe in scene.instance.pipes]
    answered = bytes(scene.client.written)
    await scene.end()
    return [target for written in origins for target in Reader().read(written)], answered


def posts() -> list[bytes]:
    """Requests whose body would end before, or behind, the smuggled one for a reader that sees them differently."""
    made = []
    for name, value in itertools.product(NAMES, VALUES):
        if (NAMES.index(name) and VALUES.index(value)) or (name == NAMES[0] and value == VALUES[0]):
            continue  # one disguise at a time
        made.append(f"{name}: {value}\r\nContent-Length: {{length}}")
        made.append(f"{name}: {value}")
    made += [f"Content-Length: {value}" for value in LENGTHS]
    made += [f"Content-Length: 5\r\nContent-Length: {value}" for value in LENGTHS]
    made += [f"Content-Length{end}: 5" for end in (" ", "\t", "\0", "_", "\x0b")]
    made += [f"Connection: {name}\r\nContent-Length: 5" for name in ("content-length", "close, Content-Length", "host")]
    made += [
        "Transfer-Encoding: chunked\r\nTransfer-Encoding: identity",
        "Content-Length: 5\r\nTransfer-Encoding: chunked",
    ]
    return [line.encode("latin-1", "replace") for line in made]


@pytest.mark.parametrize("version", ["1.1", "1.0"])
async def test_no_disguise_of_a_length_lets_another_request_through(version: str) -> None:
    body = b"0\r\n\r\n" + SMUGGLED
    cases = posts()
    assert len(cases) > 80
    for lines in cases:
        lines = lines.replace(b"{length}", b"%d" % len(body))
        wire = f"POST /first HTTP/{version}\r\nHost: {HOST}\r\n".encode() + lines + b"\r\n\r\n" + body
        for cut in (len(wire), 11):
            targets, answered = await reached(wire, cut)
            assert b"/smuggled" not in targets, lines
            assert targets == [b"/first"] or (not targets and re.match(rb"HTTP/1.\d [45]", answered)), lines


CHUNKS = [
    b"5;a=\r\n", b"5\n", b"5\r", b" 5\r\n", b"+5\r\n", b"0x5\r\n", b"5 ;\0\r\n", b"5\r\n\r\n", b"ffffffffffffffff5\r\n",
    b"-0\r\n", b"0\r\nX: y\nZ: a\r\n\r\n", b"0\r\nContent-Length: 5\r\n\r\n", b"0\n\n", b"0\r\n\n",
    b"00000\r\n\r\n", b"5;\n\r\n",
]  # fmt: skip


@pytest.mark.parametrize("first", CHUNKS)
async def test_no_disguise_of_a_chunk_lets_another_request_through(first: bytes) -> None:
    head = f"POST /first HTTP/1.1\r\nHost: {HOST}\r\nTransfer-Encoding: chunked\r\n\r\n".encode()
    for cut in (1000, 3):
        targets, _ = await reached(head + first + b"hello" + SMUGGLED, cut)
        assert targets in ([], [b"/first"])
