"""The API's certificates: which clients trust them, and when they are issued again."""

import ssl
import stat
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from api.http.own_certificate import Files, load_or_issue
from knoll.auth import certificates

NOW = datetime(2026, 3, 1, tzinfo=UTC)
NAMES = ["localhost", "127.0.0.1", "::1", "knoll.example.com"]


def shaken(files: Files, name: str) -> None:
    """A handshake between a server with these files and a client that trusts their authority, both in memory."""
    server = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    server.load_cert_chain(files.certificate, files.key)
    client = ssl.create_default_context(cafile=str(files.authority))
    there, back = ssl.MemoryBIO(), ssl.MemoryBIO()
    client_side = client.wrap_bio(back, there, server_hostname=name)
    server_side = server.wrap_bio(there, back, server_side=True)
    waiting = [client_side, server_side]
    for _ in range(10):
        for side in list(waiting):
            try:
                side.do_handshake()
            except ssl.SSLWantReadError:
                continue
            waiting.remove(side)
    assert not waiting


@pytest.mark.parametrize("name", NAMES)
def test_a_client_with_the_authority_trusts_each_name(tmp_path: Path, name: str) -> None:
    files, fresh = load_or_issue(tmp_path, NAMES, datetime.now(UTC))
    assert fresh
    shaken(files, name)


@pytest.mark.parametrize("name", ["example.com", "127.0.0.2", "other.example.com"])
def test_other_names_are_not_trusted(tmp_path: Path, name: str) -> None:
    files, _ = load_or_issue(tmp_path, NAMES, datetime.now(UTC))
    with pytest.raises(ssl.SSLCertVerificationError):
        shaken(files, name)


def test_what_is_good_is_kept(tmp_path: Path) -> None:
    files, _ = load_or_issue(tmp_path, NAMES, NOW)
    before = {path.name: path.read_bytes() for path in tmp_path.iterdir()}
    again, fresh = load_or_issue(tmp_path, list(reversed(NAMES)), NOW + timedelta(days=300))
    assert (again, fresh) == (files, False)
    assert {path.name: path.read_bytes() for path in tmp_path.iterdir()} == before


def test_a_certificate_is_renewed_before_it_expires_by_the_same_authority(tmp_path: Path) -> None:
    files, _ = load_or_issue(tmp_path, NAMES, NOW)
    authority, certificate = files.authority.read_bytes(), files.certificate.read_bytes()
    _, fresh = load_or_issue(tmp_path, NAMES, NOW + certificates.LIFE - certificates.RENEWED_BEFORE)
    assert fresh
    assert files.authority.read_bytes() == authority
    assert files.certificate.read_bytes() != certificate


def test_new_names_want_a_new_certificate(tmp_path: Path) -> None:
    load_or_issue(tmp_path, NAMES, datetime.now(UTC))
    files, fresh = load_or_issue(tmp_path, [*NAMES, "192.0.2.9"], datetime.now(UTC))
    assert fresh
    shaken(files, "192.0.2.9")


@pytest.mark.parametrize("broken", ["ca.crt", "ca.key", "api.crt", "api.key"])
@pytest.mark.parametrize("content", [None, b"", b"-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n"])
def test_lost_and_broken_files_are_made_again(tmp_path: Path, broken: str, content: bytes | None) -> None:
    load_or_issue(tmp_path, NAMES, datetime.now(UTC))
    (tmp_path / broken).unlink()
    if content is not None:
        (tmp_path / broken).write_bytes(content)
    files, fresh = load_or_issue(tmp_path, NAMES, datetime.now(UTC))
    assert fresh
    shaken(files, "localhost")


def test_keys_are_readable_only_by_their_owner(tmp_path: Path) -> None:
    load_or_issue(tmp_path / "state", NAMES, NOW)
    assert {stat.S_IMODE(path.stat().st_mode) for path in (tmp_path / "state").iterdir()} == {0o600}
    assert stat.S_IMODE((tmp_path / "state").stat().st_mode) == 0o700
