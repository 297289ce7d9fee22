"""Docker's frames of stdout and stderr, cut anywhere."""

import itertools
import struct

import pytest
from hypothesis import given
from hypothesis import strategies as st

from autoscaler.runtime.docker.stream_demux import Demux

frames = st.lists(st.tuples(st.sampled_from([1, 2]), st.binary(max_size=50)), max_size=12)


def joined(feeds: list[bytes]) -> dict[str, bytes]:
    demux, out = Demux(), {"stdout": b"", "stderr": b""}
    for data in feeds:
        for chunk in demux.feed(data):
            out[chunk.stream] += chunk.data
    return out


@given(frames=frames, cuts=st.lists(st.integers(0, 700)))
def test_the_same_bytes_cut_anywhere_give_the_same_output(frames: list[tuple[int, bytes]], cuts: list[int]) -> None:
    whole = b"".join(struct.pack(">BxxxI", kind, len(data)) + data for kind, data in frames)
    edges = [0, *sorted(cuts), len(whole)]
    pieces = [whole[start:end] for start, end in itertools.pairwise(edges)]
    expected = {"stdout": b"", "stderr": b""}
    for kind, data in frames:
        expected["stdout" if kind == 1 else "stderr"] += data
    assert joined(pieces) == expected


def test_a_frame_is_handed_on_before_it_is_whole() -> None:
    (chunk,) = Demux().feed(struct.pack(">BxxxI", 1, 100) + b"begin")
    assert chunk.data == b"begin"


def test_bytes_of_a_terminal_are_refused() -> None:
    with pytest.raises(ValueError, match="not a multiplexed stream"):
        Demux().feed(b"$ hello world")
