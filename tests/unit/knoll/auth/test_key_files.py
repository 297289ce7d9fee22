"""Folders of keys: created once, one for each process, unreadable for others."""

import stat
from pathlib import Path

import pytest

from knoll.auth import key_files, redis_acl
from knoll.process.settings import ActivatorSettings, ApiSettings, SettingsError
from knoll.redis import encryption


def files(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def test_missing_keys_are_created_and_existing_ones_kept(tmp_path: Path) -> None:
    passwords = key_files.prepare(tmp_path)
    made = files(tmp_path)
    assert key_files.prepare(tmp_path) == passwords
    assert files(tmp_path) == made
    assert len(set(passwords.values())) == len(redis_acl.PROCESSES) + 1


def test_each_process_has_only_its_own_keys(tmp_path: Path) -> None:
    key_files.prepare(tmp_path)
    holding = {
        name: {path.parent.name for path in tmp_path.rglob(name)} for name in (key_files.SECRETS, key_files.GATEWAY)
    }
    assert holding == {key_files.SECRETS: {"api", "builder", "autoscaler"}, key_files.GATEWAY: {"api", "activator"}}
    assert key_files.keyring(tmp_path, key_files.SECRETS) != key_files.keyring(tmp_path, key_files.GATEWAY)


def test_keys_and_passwords_are_readable_only_by_their_owner(tmp_path: Path) -> None:
    key_files.prepare(tmp_path)
    modes = {path.name: stat.S_IMODE(path.stat().st_mode) for path in tmp_path.rglob("*") if path.is_file()}
    assert modes == {"redis-password": 0o600, "secrets.keys": 0o600, "gateway.keys": 0o600, "users.acl": 0o644}
    assert {stat.S_IMODE((tmp_path / process).stat().st_mode) for process in redis_acl.PROCESSES} == {0o700}


def test_a_keyring_that_one_process_has_lost_comes_back_from_another(tmp_path: Path) -> None:
    key_files.prepare(tmp_path)
    before = key_files.keyring(tmp_path, key_files.SECRETS)
    (tmp_path / "api" / key_files.SECRETS).unlink()
    key_files.prepare(tmp_path)
    assert encryption.load((tmp_path / "api" / key_files.SECRETS).read_bytes()) == before


def test_a_keyring_that_cannot_be_read_is_never_replaced(tmp_path: Path) -> None:
    key_files.prepare(tmp_path)
    (tmp_path / "api" / key_files.SECRETS).write_bytes(b"spoilt")
    with pytest.raises(key_files.KeyFilesError, match=r"secrets\.keys: line 1 is not"):
        key_files.prepare(tmp_path)
    assert (tmp_path / "api" / key_files.SECRETS).read_bytes() == b"spoilt"


def test_a_url_with_a_user_gets_the_password_from_the_folder(tmp_path: Path) -> None:
    passwords = key_files.prepare(tmp_path)
    settings = ApiSettings.read({"KNOLL_REDIS_URL": "redis://api@host:1/0", "KNOLL_KEYS_DIR": str(tmp_path / "api")})
    assert settings.redis_url == f"redis://api:{passwords['api']}@host:1/0"
    settings = ApiSettings.read(
        {"KNOLL_REDIS_URL": "unix://api@/run/r.sock?db=0", "KNOLL_KEYS_DIR": str(tmp_path / "api")}
    )
    assert settings.redis_url == f"unix://api:{passwords['api']}@/run/r.sock?db=0"
    assert settings.keyring.seals


@pytest.mark.parametrize("url", ["redis://host:1/0", "redis://me:mine@host:1/0", "redis://:mine@host:1/0"])
def test_a_url_that_is_complete_stays_as_it_is(url: str, tmp_path: Path) -> None:
    assert ApiSettings.read({"KNOLL_REDIS_URL": url, "KNOLL_KEYS_DIR": str(tmp_path)}).redis_url == url


def test_a_missing_password_is_reported_with_its_file(tmp_path: Path) -> None:
    with pytest.raises(SettingsError, match=r"KNOLL_KEYS_DIR=.*redis-password: No such file"):
        ActivatorSettings.read({"KNOLL_REDIS_URL": "redis://activator@host:1/0", "KNOLL_KEYS_DIR": str(tmp_path)})
