"""Compressed data is restored exactly, whatever the dictionary was, and similar data takes little space."""

import json
import random
import uuid
import zlib

import pytest
from hypothesis import given
from hypothesis import strategies as st

from knoll.store.compression import MAX_DICTIONARY_BYTES, compress, decompress, deflate


@given(st.lists(st.tuples(st.sampled_from(["a", "b", "c"]), st.binary(min_size=1)), max_size=20))
def test_everything_comes_back(items: list[tuple[str, bytes]]) -> None:
    kept = [(kind, compress(kind, data)) for kind, data in items]
    assert [(kind, decompress(kind, data)) for kind, data in kept] == items


@given(st.integers(MAX_DICTIONARY_BYTES - 2, 10 * MAX_DICTIONARY_BYTES), st.integers(1, 100_000))
def test_large_ones_come_back_too(first: int, second: int) -> None:
    kind = uuid.uuid4().hex
    for size in (first, second):
        data = bytes(place * place % 251 for place in range(size))
        assert decompress(kind, compress(kind, data)) == data


def test_the_second_of_a_kind_takes_a_fraction() -> None:
    def revision() -> bytes:
        meta = {"name": f"hello-{uuid.uuid4().hex[:5]}", "uid": str(uuid.uuid4()), "labels": {"app": "hello"}}
        conditions = [{"type": name, "status": "True"} for name in ("Active", "ContainerHealthy", "Ready")]
        return json.dumps({"kind": "Revision", "metadata": meta, "status": {"conditions": conditions}}).encode()

    kind = uuid.uuid4().hex
    compress(kind, revision())
    assert len(compress(kind, revision())) < len(revision()) / 3


@pytest.mark.parametrize("size", [1, 1000, 1 << 14, (1 << 14) + 1, 100_000])
def test_other_processes_read_what_is_deflated_and_a_repetition_takes_little(size: int) -> None:
    data = random.Random(size).randbytes(size)
    assert zlib.decompress(deflate(data + data)) == data + data
    if size <= 1 << 14:
        assert len(deflate(data + data)) < 1.2 * size + 100
