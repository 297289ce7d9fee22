"""Bodies in chunks."""

import itertools

import pytest
from hypothesis import given
from hypothesis import strategies as st

from activator.wire.chunked import ChunkedReader, chunk, last_chunk


def cut(data: bytes, places: list[int]) -> list[bytes]:
    edges = [0, *sorted(place % (len(data) + 1) for place in places), len(data)]
    return [data[a:b] for a, b in itertools.pairwise(edges)]


def read(parts: list[bytes]) -> tuple[bytes, bool, bool, bytes, bytes]:
    chunks, body, rest = ChunkedReader(), b"", b""
    for part in parts:
        if chunks.done or chunks.error:
            rest += part
            continue
        if part:
            body += chunks.feed(part)
    after = chunks.rest + rest if chunks.done else b""
    return (body if not chunks.error else b""), chunks.done, bool(chunks.error), after, chunks.trailers


@given(
    pieces=st.lists(st.binary(min_size=1, max_size=40), max_size=6),
    trailers=st.sampled_from([b"", b"X-Sum: 1\r\n", b"X-A: 1\r\nX-B: 2\r\n"]),
    rest=st.binary(max_size=20),
    places=st.lists(st.integers(0, 500), max_size=30),
)
def test_a_body_is_read_the_same_wherever_it_is_cut(
    pieces: list[bytes], trailers: bytes, rest: bytes, places: list[int]
) -> None:
    wire = b"".join(map(chunk, pieces)) + last_chunk(trailers) + rest
    assert read(cut(wire, places)) == (b"".join(pieces), True, False, rest, trailers)


@given(data=st.binary(max_size=80), places=st.lists(st.integers(0, 100), max_size=10))
def test_broken_bytes_are_understood_the_same_wherever_they_are_cut(data: bytes, places: list[int]) -> None:
    wire = b"4\r\nabcd\r\n" + data
    whole, cuts = read([wire]), read(cut(wire, places))
    assert whole[1:3] == cuts[1:3]
    if whole[1]:
        assert whole == cuts


@pytest.mark.parametrize(
    "wire",
    [
        b"\r\n", b"x\r\n", b"-1\r\n", b"+1\r\n", b"0x1\r\n", b" 1\r\n", b"1\n", b"1\ra\r\n", b"1_0\r\n",
        b"1" * 16 + b"\r\n",
        b"3\r\nabcX", b"3\r\nabc\rX", b"3\r\nabc\n", b"1;\0\r\n", b"1;a=\x0b\r\n", b"1" + b" " * 1100,
        b"0\r\nA : b\r\n\r\n", b"0\r\nA: b\nC: d\r\n\r\n", b"0\r\n a\r\n\r\n", b"0\r\nA: " + b"b" * 17_000,
    ],
)  # fmt: skip
def test_a_chunk_that_two_readers_could_see_differently_is_an_error(wire: bytes) -> None:
    chunks = ChunkedReader()
    chunks.feed(wire)
    assert chunks.error
    assert not chunks.done


def test_an_extension_is_thrown_away() -> None:
    chunks = ChunkedReader()
    assert chunks.feed(b'3;a="b"\r\nabc\r\n0;x\r\n\r\nnext') == b"abc"
    assert (chunks.done, chunks.rest) == (True, b"next")


def test_a_trailer_that_means_something_in_a_head_is_thrown_away() -> None:
    chunks = ChunkedReader()
    chunks.feed(b"0\r\nContent-Length: 3\r\nX: 1\r\nHost: b\r\n\r\n")
    assert chunks.trailers == b"X: 1\r\n"
