"""Envelopes can be opened only for the subject, and with the keys, that they were created with."""

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from knoll.redis.encryption import (
    PLAIN,
    EncryptionKey,
    Keyring,
    SealedError,
    dump,
    is_sealed,
    key_id,
    load,
    seal,
    unseal,
)

KEY, OTHER = EncryptionKey(b"k" * 32), EncryptionKey(b"o" * 32)


@given(st.binary(max_size=2000), st.text(max_size=50))
def test_what_was_sealed_is_opened_by_any_keyring_that_has_the_key(data: bytes, subject: str) -> None:
    envelope = seal(KEY, data, subject)
    assert unseal((OTHER, KEY), envelope, subject) == data
    assert key_id(envelope) == KEY.id
    assert is_sealed(envelope)
    assert len(data) < 8 or data not in envelope


@given(st.binary(max_size=200), st.integers(0, 10_000), st.integers(1, 255))
def test_an_envelope_that_was_changed_is_not_opened(data: bytes, at: int, flip: int) -> None:
    envelope = bytearray(seal(KEY, data, "object secrets a/b"))
    envelope[at % len(envelope)] ^= flip
    with pytest.raises(SealedError):
        unseal((KEY,), bytes(envelope), "object secrets a/b")


def test_an_envelope_is_worth_nothing_in_another_place() -> None:
    envelope = seal(KEY, b"crown", "object secrets bank/crown")
    with pytest.raises(SealedError, match="object secrets thief/crown in Redis was changed or moved"):
        unseal((KEY,), envelope, "object secrets thief/crown")


def test_two_envelopes_of_the_same_are_different() -> None:
    assert seal(KEY, b"crown", "x") != seal(KEY, b"crown", "x")


def test_a_missing_key_is_named_and_what_to_do() -> None:
    with pytest.raises(SealedError, match=rf"encrypted with the key {KEY.id}, .*KNOLL_KEYS_DIR"):
        unseal((OTHER,), seal(KEY, b"crown", "x"), "x")


def test_a_keyring_is_read_back_and_shows_no_key() -> None:
    assert load(dump([KEY, OTHER])) == (KEY, OTHER)
    assert "kkkk" not in repr(KEY)


@pytest.mark.parametrize(
    "content", [b"", b"\n", b"nonsense", b"id AAAA\n", dump([KEY]).replace(KEY.id.encode(), b"0" * 16)]
)
def test_what_is_no_keyring_is_refused_without_repeating_it(content: bytes) -> None:
    with pytest.raises(ValueError, match=r"line 1 is not|it contains no key") as refused:
        load(content)
    assert "AAAA" not in str(refused.value)


def test_a_rotation_needs_no_restart(tmp_path: Path) -> None:
    file = tmp_path / "secrets.keys"
    file.write_bytes(dump([KEY]))
    keyring = Keyring(file)
    before = keyring.seal(b"crown", "x")
    file.write_bytes(dump([OTHER, KEY]))
    after = keyring.seal(b"crown", "x")
    assert (key_id(before), key_id(after)) == (KEY.id, OTHER.id)
    assert keyring.open(before, "x") == keyring.open(after, "x") == b"crown"
    assert keyring.current == OTHER.id
    file.write_bytes(dump([OTHER]))
    with pytest.raises(SealedError):
        keyring.open(before, "x")


def test_without_a_keyring_nothing_is_sealed_and_nothing_sealed_is_read() -> None:
    assert PLAIN.seal(b"{}", "x") == b"{}"
    assert PLAIN.open(b"{}", "x") == b"{}"
    with pytest.raises(SealedError):
        PLAIN.open(seal(KEY, b"{}", "x"), "x")


def test_a_keyring_that_is_missing_is_an_error_and_not_a_plain_one(tmp_path: Path) -> None:
    with pytest.raises(SealedError, match="cannot be read"):
        Keyring(tmp_path / "none").seal(b"{}", "x")
