"""What Redis stores of Secrets: envelopes, in the objects, in the history and in the append-only file."""

import asyncio
import contextlib
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any, cast

import pytest

from knoll.auth import key_files, reencryption, token_key
from knoll.redis import keys
from knoll.redis.client import RedisClient, connected
from knoll.redis.encryption import PLAIN, EncryptionKey, Keyring, SealedError, dump, is_sealed, key_id, load
from knoll.redis.streams import entry_of
from knoll.store.informer import Informer
from knoll.store.redis_store import RedisStore
from knoll.values import kinds
from knoll.values.errors import ExpiredError
from tests.component.knoll.conftest import RedisProcess, take
from tests.waiting import eventually

pytestmark = pytest.mark.redis
VALUE = "Y3Jvd24gamV3ZWxz"
SECRETS = kinds.SECRET.id


def secret(name: str, value: str = VALUE) -> dict[str, Any]:
    return {"kind": "Secret", "metadata": {"namespace": "bank", "name": name, "uid": name}, "data": {"key": value}}


@pytest.fixture
def file(tmp_path: Path) -> Path:
    path = tmp_path / key_files.SECRETS
    path.write_bytes(dump([EncryptionKey.fresh()]))
    return path


@pytest.fixture
async def client(own_redis: RedisProcess) -> AsyncIterator[RedisClient]:
    async with connected(own_redis.url, "test") as redis:
        yield redis


async def objects(redis: RedisClient) -> dict[bytes, bytes]:
    return cast(dict[bytes, bytes], await redis.execute("HGETALL", keys.objects(SECRETS)))


def on_disk(server: RedisProcess) -> bytes:
    content = []
    for path in (server.directory / "appendonlydir").iterdir():
        with contextlib.suppress(FileNotFoundError):  # removed just now
            content.append(path.read_bytes())
    return b"".join(content)


def only_key(file: Path) -> EncryptionKey:
    (key,) = load(file.read_bytes())
    return key


def keep(file: Path, *keys: EncryptionKey) -> None:
    file.write_bytes(dump(keys))


async def test_nothing_that_redis_writes_holds_a_secret(
    own_redis: RedisProcess, client: RedisClient, file: Path
) -> None:
    store = RedisStore(client, keyring=Keyring(file))
    made = await store.create(SECRETS, secret("crown"))
    await store.update(SECRETS, {**made, "data": {"key": VALUE, "other": VALUE}})
    await store.delete(SECRETS, "bank", "crown")
    await store.create(SECRETS, secret("sceptre"))
    await token_key.shared_key(client, Keyring(file))
    await store.create(kinds.CONFIG_MAP.id, secret("public", "bm90IHNlY3JldA=="))
    content = on_disk(own_redis)
    assert b"bm90IHNlY3JldA==" in content, "what is no Secret is as readable as ever"
    for plain in (VALUE.encode(), b"crown jewels", b"PRIVATE KEY"):
        assert plain not in content
    events = [entry_of(entry) for entry in await client.execute("XRANGE", keys.EVENTS, "-", "+")]
    of_secrets = [fields[b"e"].partition(b"\n")[2] for _, fields in events if fields[b"r"] == SECRETS.encode()]
    assert len(of_secrets) == 4
    assert all(is_sealed(event) for event in of_secrets), "packed, they would hide the value and not protect it"


async def test_an_envelope_moved_to_another_place_is_rejected(client: RedisClient, file: Path) -> None:
    store = RedisStore(client, keyring=Keyring(file))
    await store.create(SECRETS, secret("crown"))
    await store.create(SECRETS, secret("mine", "bWluZQ=="))
    stored = await objects(client)
    await client.execute("HSET", keys.objects(SECRETS), "bank/mine", stored[b"bank/crown"])
    with pytest.raises(SealedError, match="object secrets bank/mine in Redis was changed or moved"):
        await store.get(SECRETS, "bank", "mine")
    with pytest.raises(SealedError):
        await store.list(SECRETS, "bank")
    assert [item.key for item in (await store.list_packed(SECRETS)).items] == ["bank/crown"], "others are still read"


async def test_without_the_key_an_object_is_an_error_and_a_watch_starts_again(client: RedisClient, file: Path) -> None:
    store, blind = RedisStore(client, keyring=Keyring(file)), RedisStore(client)
    since = await store.version()
    made = await store.create(SECRETS, secret("crown"))
    with pytest.raises(SealedError, match="KNOLL_KEYS_DIR"):
        await blind.get(SECRETS, "bank", "crown")
    with pytest.raises(ExpiredError):
        await take(blind.watch(since, {SECRETS}), 1)
    informer = Informer(blind, SECRETS)
    running = asyncio.create_task(informer.run())
    async with asyncio.timeout(30):
        await informer.synced()
    assert informer.get("bank", "crown") is None
    running.cancel()
    await asyncio.gather(running, return_exceptions=True)
    assert (await take(store.watch(since, {SECRETS}), 1))[0].body == made
    await blind.close()
    await store.close()


async def test_what_was_plain_is_encrypted_and_its_history_and_file_are_cut(
    own_redis: RedisProcess, client: RedisClient, file: Path
) -> None:
    plain = RedisStore(client)
    since = await plain.version()
    made = [await plain.create(SECRETS, secret(name)) for name in ("crown", "sceptre")]
    gone = await plain.create(SECRETS, secret("gone"))
    await plain.delete(SECRETS, "bank", "gone")
    other = await plain.create(kinds.CONFIG_MAP.id, secret("public", "bm90IHNlY3JldA=="))
    last = await plain.version()
    key = await token_key.shared_key(client)
    assert VALUE.encode() in on_disk(own_redis)
    keyring = Keyring(file)
    assert await reencryption.reseal(client, keyring) == 3
    store = RedisStore(client, keyring=keyring)
    listing = await store.list(SECRETS)
    assert (listing.items, listing.version) == (made, last), "neither content nor version changes"
    assert await token_key.shared_key(client, keyring) == key
    assert gone["metadata"]["name"].encode() not in b"".join(await objects(client))
    with pytest.raises(ExpiredError):
        await take(store.watch(since), 1)
    (event,) = await take(store.watch(last - 1), 1)
    assert event.body == other
    await eventually(lambda: VALUE.encode() not in on_disk(own_redis), condition="the file is written anew")
    assert b"PRIVATE KEY" not in on_disk(own_redis)
    assert await reencryption.reseal(client, keyring) == 0
    await store.close()


async def test_after_a_rotation_all_is_under_the_new_key_and_watches_go_on(client: RedisClient, file: Path) -> None:
    keyring = Keyring(file)
    store = RedisStore(client, keyring=keyring)
    since = await store.version()
    made = [await store.create(SECRETS, secret(name)) for name in ("crown", "sceptre")]
    signing = await token_key.shared_key(client, keyring)
    old, new = only_key(file), EncryptionKey.fresh()
    keep(file, new, old)
    assert await reencryption.reseal(client, keyring) == 3
    stored = await objects(client)
    assert {key_id(value.partition(b"\n")[2]) for value in stored.values()} == {new.id}
    assert [event.body for event in await take(store.watch(since), 2)] == made, "the history is still read"
    assert await token_key.shared_key(client, keyring) == signing
    # The next rotation drops the old key, and with it the events that only this key opens.
    keep(file, EncryptionKey.fresh(), new)
    await reencryption.reseal(client, keyring)
    with pytest.raises(ExpiredError):
        await take(store.watch(since), 1)
    assert (await store.list(SECRETS)).items == made
    await store.close()


async def test_a_write_meanwhile_is_not_undone(client: RedisClient, file: Path) -> None:
    plain, keyring = RedisStore(client), Keyring(file)
    store = RedisStore(client, keyring=keyring)
    for number in range(50):
        await plain.create(SECRETS, secret(f"s-{number}"))

    async def write(number: int) -> None:
        body = await store.get(SECRETS, "bank", f"s-{number}")
        await store.update(SECRETS, {**body, "data": {"key": "bmV3"}})

    await asyncio.gather(reencryption.reseal(client, keyring), *(write(number) for number in range(50)))
    assert {item["data"]["key"] for item in (await store.list(SECRETS)).items} == {"bmV3"}
    assert all(is_sealed(value.partition(b"\n")[2]) for value in (await objects(client)).values())


async def test_without_a_keyring_nothing_is_touched(client: RedisClient) -> None:
    await RedisStore(client).create(SECRETS, secret("crown"))
    assert await reencryption.reseal(client, PLAIN) == 0
    assert b"jewels" not in b"".join((await objects(client)).values())
    assert VALUE.encode() in b"".join((await objects(client)).values())


async def test_what_no_key_opens_can_be_given_up_and_all_else_stays(client: RedisClient, file: Path) -> None:
    keyring = Keyring(file)
    store = RedisStore(client, keyring=keyring)
    await store.create(SECRETS, secret("lost"))
    await token_key.shared_key(client, keyring)
    keep(file, EncryptionKey.fresh())
    kept = await store.create(SECRETS, secret("kept"))
    with pytest.raises(SealedError, match="discard-unreadable"):
        await store.list(SECRETS)
    discarded = await reencryption.discard_unreadable(client, keyring)
    assert discarded == ["object secrets bank/lost", "token-key"]
    assert (await store.list(SECRETS)).items == [kept]
    assert (await token_key.shared_key(client, keyring)).pem
    assert await reencryption.discard_unreadable(client, keyring) == []
    await store.close()
