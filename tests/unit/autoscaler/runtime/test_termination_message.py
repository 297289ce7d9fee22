"""The termination message of a container."""

from collections.abc import AsyncIterator

from hypothesis import given
from hypothesis import strategies as st

from autoscaler.runtime.model import LogChunk
from autoscaler.runtime.termination_message import BYTES, tail_of


async def chunks(parts: list[bytes]) -> AsyncIterator[LogChunk]:
    for part in parts:
        yield LogChunk("stderr", part)


@given(st.lists(st.binary(max_size=900), max_size=8))
async def test_the_end_is_bounded_and_is_the_end(parts: list[bytes]) -> None:
    text = await tail_of(chunks(parts))
    whole = b"".join(parts).decode(errors="replace")
    assert len(text) <= BYTES
    assert text == text.strip()
    if len(b"".join(parts)) <= BYTES:
        assert text == whole.strip()


async def test_a_cut_log_begins_with_a_whole_line() -> None:
    lines = b"".join(b"line %d with some more text in it\n" % number for number in range(1000))
    text = await tail_of(chunks([lines]))
    assert text.startswith("line ")
    assert text.endswith("line 999 with some more text in it")


async def test_one_endless_line_is_cut_from_the_left() -> None:
    assert await tail_of(chunks([b"x" * 5000, b"end"])) == "x" * (BYTES - 3) + "end"
