"""The platform's authority and the owner's token in the store, which all API servers share."""

import asyncio
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
import yaml

from api import authority, owner
from api.http import own_certificate
from api.resource import bootstrap, stored_secrets
from api.resource.machines import AUTHORITY
from knoll.auth import certificates, key_files, kubeconfig
from knoll.auth.certificates import Issued
from knoll.process.settings import ApiSettings
from knoll.redis.client import connected
from knoll.redis.encryption import Keyring
from knoll.store.redis_store import RedisStore
from knoll.values.errors import ConflictError
from knoll.values.kinds import SECRET, SERVICE_ACCOUNT
from tests.component.api.test_tls import running
from tests.doubles.memory_store import MemoryStore

NOW = datetime(2026, 3, 1, tzinfo=UTC)


@pytest.fixture
def store() -> MemoryStore:
    return MemoryStore()


def contents(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.iterdir()}


async def test_servers_with_folders_of_their_own_share_one_authority(store: MemoryStore, tmp_path: Path) -> None:
    first = await authority.synchronise(store, tmp_path / "a", NOW)
    second = await authority.synchronise(store, tmp_path / "b", NOW)
    assert first.certificate == second.certificate
    assert first.key_pem == second.key_pem
    issued = [own_certificate.load_or_issue(tmp_path / name, ["localhost"], NOW)[0] for name in "ab"]
    assert issued[0].authority.read_bytes() == issued[1].authority.read_bytes() == first.certificate_pem
    assert issued[0].certificate.read_bytes() != issued[1].certificate.read_bytes()


async def test_the_authority_of_an_earlier_release_moves_from_its_folder_into_the_store(
    store: MemoryStore, tmp_path: Path
) -> None:
    files, _ = own_certificate.load_or_issue(tmp_path, ["localhost"], NOW)
    before = contents(tmp_path)
    moved = await authority.synchronise(store, tmp_path, NOW)
    assert moved.certificate_pem == files.authority.read_bytes()
    assert contents(tmp_path) == before
    stored = await stored_secrets.read(store, *AUTHORITY)
    assert stored.data == {"tls.crt": before["ca.crt"], "tls.key": before["ca.key"]}


async def test_a_store_that_lost_its_data_gets_the_authority_back(store: MemoryStore, tmp_path: Path) -> None:
    first = await authority.synchronise(store, tmp_path, NOW)
    await store.delete(SECRET.id, *AUTHORITY)
    assert (await authority.synchronise(store, tmp_path, NOW)).certificate == first.certificate


async def test_the_folder_of_another_platform_gets_the_authority_of_the_store(
    store: MemoryStore, tmp_path: Path
) -> None:
    theirs = certificates.new_authority(NOW)
    own_certificate.keep_authority(tmp_path, theirs)
    ours = await authority.synchronise(store, tmp_path / "new", NOW)
    assert (await authority.synchronise(store, tmp_path, NOW)).certificate == ours.certificate
    kept = own_certificate.load_authority(tmp_path)
    assert kept is not None
    assert kept.certificate == ours.certificate
    _, fresh = own_certificate.load_or_issue(tmp_path, ["localhost"], NOW)
    assert fresh


async def test_servers_that_start_together_agree_on_one_authority(redis_url: str, tmp_path: Path) -> None:
    async def start(number: int) -> Issued:
        async with connected(redis_url, f"api-{number}") as redis:
            return await authority.synchronise(RedisStore(redis), tmp_path / str(number), NOW)

    created = await asyncio.gather(*(start(number) for number in range(8)))
    assert len({each.certificate_pem for each in created}) == 1
    assert len({(tmp_path / str(number) / "ca.key").read_bytes() for number in range(8)}) == 1


async def test_one_server_renews_an_authority_that_expires_and_the_others_take_it(
    store: MemoryStore, tmp_path: Path
) -> None:
    first = await authority.synchronise(store, tmp_path / "a", NOW)
    await authority.synchronise(store, tmp_path / "b", NOW)
    late = NOW + certificates.AUTHORITY_LIFE - timedelta(days=3)
    renewed = await authority.synchronise(store, tmp_path / "a", late)
    assert renewed.certificate != first.certificate
    assert (await authority.synchronise(store, tmp_path / "b", late)).certificate == renewed.certificate


@pytest.mark.parametrize("content", [b"", b"-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n"])
async def test_a_broken_authority_in_the_store_is_replaced_by_the_copy_of_a_folder(
    store: MemoryStore, tmp_path: Path, content: bytes
) -> None:
    first = await authority.synchronise(store, tmp_path, NOW)
    stored = await stored_secrets.read(store, *AUTHORITY)
    await stored_secrets.write(store, *AUTHORITY, {**stored.data, "tls.crt": content}, stored)
    assert (await authority.synchronise(store, tmp_path, NOW)).certificate == first.certificate


async def test_the_authority_is_encrypted_in_redis(redis_url: str, tmp_path: Path) -> None:
    key_files.prepare(tmp_path / "keys")
    keyring = Keyring(tmp_path / "keys" / "api" / key_files.SECRETS)
    async with connected(redis_url, "api") as redis:
        made = await authority.synchronise(RedisStore(redis, keyring=keyring), tmp_path / "state", NOW)
        stored = await redis.execute("HGETALL", "knoll:objects:secrets")
    everything = b"".join(stored.values())
    assert b"sealed:" in everything
    assert made.key_pem.splitlines()[1] not in everything


async def test_a_secret_that_changed_since_it_was_read_is_not_overwritten(store: MemoryStore) -> None:
    nothing = await stored_secrets.read(store, "kube-system", "s")
    await stored_secrets.write(store, "kube-system", "s", {"a": b"1"}, nothing)
    with pytest.raises(ConflictError):
        await stored_secrets.write(store, "kube-system", "s", {"a": b"2"}, nothing)
    first = await stored_secrets.read(store, "kube-system", "s")
    await stored_secrets.write(store, "kube-system", "s", {"a": b"3"}, first)
    with pytest.raises(ConflictError):
        await stored_secrets.write(store, "kube-system", "s", {"a": b"4"}, first)
    assert (await stored_secrets.read(store, "kube-system", "s")).data == {"a": b"3"}


async def test_all_servers_write_the_same_token_for_the_owner(redis_url: str, tmp_path: Path) -> None:
    async with connected(redis_url, "api") as redis:
        store = RedisStore(redis)
        settings = [ApiSettings(state_dir=tmp_path / name, gateway_address=f"192.0.2.{ord(name)}") for name in "ab"]
        for each in settings:
            each.state_dir.mkdir()
        await bootstrap.create_all(store, settings[0])
        for each in settings:
            await owner.write(store, redis, each, "PEM")
        first, second = (yaml.safe_load(each.kubeconfig.read_text()) for each in settings)
        assert first["users"] == second["users"]
        assert [each["clusters"][0]["cluster"]["server"] for each in (first, second)] == [
            "https://192.0.2.97:0",
            "https://192.0.2.98:0",
        ]
        # An earlier release stored the token only in the file.
        await store.delete(SECRET.id, *owner.TOKEN)
        await owner.write(store, redis, settings[0], "PEM")
        await owner.write(store, redis, settings[1], "PEM")
        assert yaml.safe_load(settings[1].kubeconfig.read_text())["users"] == first["users"]
        # The token of a deleted ServiceAccount is not valid.
        await store.delete(SERVICE_ACCOUNT.id, *kubeconfig.OWNER)
        await bootstrap.create_all(store, settings[0])
        for each in settings:
            await owner.write(store, redis, each, "PEM")
        renewed = [yaml.safe_load(each.kubeconfig.read_text())["users"] for each in settings]
        assert renewed[0] == renewed[1] != first["users"]


@pytest.mark.kubectl
async def test_two_servers_on_two_machines_serve_each_others_kubeconfig(redis_url: str, tmp_path: Path) -> None:
    for name in "ab":
        (tmp_path / name).mkdir()
    async with running(redis_url, tmp_path / "a") as first, running(redis_url, tmp_path / "b") as second:
        assert (first.state / "ca.crt").read_bytes() == (second.state / "ca.crt").read_bytes()
        config = tmp_path / "mixed"
        config.write_text(first.kubeconfig.read_text().replace(first.tls, second.tls))
        assert await second.kubectl("auth", "can-i", "*", "*", "-A", config=config) == "yes"
        assert await second.kubectl("auth", "can-i", "*", "*", "-A") == "yes"
        assert await first.kubectl("create", "namespace", "team") == "namespace/team created"
        assert "team" in await second.kubectl("get", "namespaces", config=config)
