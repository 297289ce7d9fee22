"""Where the frames of a WebSocket end, however its bytes are cut."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from activator.wire.websocket import GOING_AWAY, Frames

Frame = tuple[int, bytes, bool]


def wire(opcode: int, payload: bytes, masked: bool) -> bytes:
    size = len(payload)
    mask = 0x80 if masked else 0
    if size < 126:
        length = bytes([mask | size])
    elif size < 65536:
        length = bytes([mask | 126]) + size.to_bytes(2)
    else:
        length = bytes([mask | 127]) + size.to_bytes(8)
    return bytes([0x80 | opcode]) + length + (b"\x01\x02\x03\x04" if masked else b"") + payload


payloads = st.one_of(st.binary(max_size=200), st.sampled_from([b"x" * size for size in (125, 126, 65535, 65536)]))
frames = st.lists(st.tuples(st.sampled_from([0, 1, 2, 9, 10]), payloads, st.booleans()), max_size=6)


@given(frames, st.data())
def test_a_frame_may_begin_exactly_where_one_has_ended(given_frames: list[Frame], data: st.DataObject) -> None:
    ends, all_of_it = {0}, b""
    for each in given_frames:
        all_of_it += wire(*each)
        ends.add(len(all_of_it))
    cuts = data.draw(st.lists(st.integers(0, len(all_of_it)), max_size=8))
    cuts = sorted({*cuts, len(all_of_it)})
    tracker, at = Frames(), 0
    for cut in cuts:
        tracker.feed(all_of_it[at:cut])
        at = cut
        assert tracker.at_boundary == (at in ends)
    assert not tracker.closed


@given(frames, st.integers(0, 125))
def test_a_close_frame_is_seen(before: list[Frame], size: int) -> None:
    tracker = Frames()
    for each in before:
        tracker.feed(wire(*each))
    tracker.feed(wire(8, b"x" * size, masked=False))
    assert tracker.closed
    assert tracker.at_boundary


@pytest.mark.parametrize("cut", range(len(GOING_AWAY) + 1))
def test_our_own_close_frame_is_one(cut: int) -> None:
    tracker = Frames()
    tracker.feed(GOING_AWAY[:cut])
    tracker.feed(GOING_AWAY[cut:])
    assert tracker.closed
    assert tracker.at_boundary
