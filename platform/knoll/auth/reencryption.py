"""Encrypts values in Redis with the newest key: plain values when the API starts, and all of them after a rotation.

Each object is replaced only if it has not changed since it was read, and without a new version, because nothing changes
for watchers. The event history cannot be rewritten, so it is truncated after the last event that contains a Secret in
plain text or encrypted with a deleted key; watches that began earlier list again, as after any truncation. Redis then
rewrites its append-only file, which drops the old values.
"""

from collections.abc import Awaitable
from typing import Any, cast

import structlog
from redis.asyncio import Redis
from redis.exceptions import RedisError

from knoll.auth.token_key import shared_key
from knoll.concurrency.backoff import Backoff
from knoll.redis import keys
from knoll.redis.client import translate_errors, version_of
from knoll.redis.encryption import (
    SEALED_KINDS,
    TOKEN_KEY_SUBJECT,
    Keyring,
    SealedError,
    is_sealed,
    key_id,
    object_subject,
)
from knoll.values.errors import KnollError, StoreUnavailableError

log = structlog.get_logger()

_BATCH = 512

# KEYS: objects. ARGV: field, value that was read, its replacement. Returns 1 when it was replaced.
_EXCHANGE_FIELD = """
if redis.call('HGET', KEYS[1], ARGV[1]) ~= ARGV[2] then return 0 end
redis.call('HSET', KEYS[1], ARGV[1], ARGV[3])
return 1
"""
# KEYS: objects. ARGV: field, value that was read.
_DISCARD_FIELD = "if redis.call('HGET', KEYS[1], ARGV[1]) == ARGV[2] then redis.call('HDEL', KEYS[1], ARGV[1]) end"
# KEYS: string. ARGV: value that was read, its replacement. Returns 1 when it was replaced.
_EXCHANGE = """
if redis.call('GET', KEYS[1]) ~= ARGV[1] then return 0 end
redis.call('SET', KEYS[1], ARGV[2])
return 1
"""


async def reseal(redis: "Redis", keyring: Keyring) -> int:
    """Encrypt Secrets, the token key and the history with the keyring's newest key; returns how many values changed.

    Raises: StoreUnavailableError. SealedError: a value is encrypted with a key that the keyring does not have; values
        before it have been re-encrypted.
    """
    if not keyring.seals:
        return 0
    with translate_errors():
        changed = sum([await _objects(redis, keyring, resource) for resource in sorted(SEALED_KINDS)])
        changed += await _token_key(redis, keyring)
        cut = await _history(redis, keyring)
        if changed or cut:
            log.info("secrets encrypted", values=changed, events_cut=cut, key=keyring.current)
            await _rewrite_file(redis)
    return changed


async def discard_unreadable(redis: "Redis", keyring: Keyring) -> list[str]:
    """Delete the values that no key of the keyring can decrypt; returns their names.

    No event is recorded: values that cannot be read were in no list that a watch could follow.

    Raises: StoreUnavailableError.
    """
    discarded = []
    with translate_errors():
        for resource in sorted(SEALED_KINDS):
            stored = await cast(Awaitable[dict[bytes, bytes]], redis.hgetall(keys.objects(resource)))
            for field, value in stored.items():
                subject = object_subject(resource, field.decode())
                if not _opens(keyring, value.partition(b"\n")[2], subject):
                    await redis.register_script(_DISCARD_FIELD)(keys=[keys.objects(resource)], args=[field, value])
                    discarded.append(subject)
        token_key = cast(bytes | None, await redis.get(keys.TOKEN_KEY))
        if token_key is not None and not _opens(keyring, token_key, TOKEN_KEY_SUBJECT):
            await redis.delete(keys.TOKEN_KEY)
            discarded.append(TOKEN_KEY_SUBJECT)
    return discarded


def _opens(keyring: Keyring, data: bytes, subject: str) -> bool:
    try:
        keyring.open(data, subject)
    except SealedError:
        return False
    return True


async def at_start(redis: "Redis", keyring: Keyring) -> None:
    """Encrypt values that an earlier release, or a run without keys, stored in plain text; create the token key.

    Waits until Redis is available.
    """
    backoff = Backoff()
    while True:
        try:
            await reseal(redis, keyring)
            # Other processes read it, and only the API may create it.
            await shared_key(redis, keyring)
            return
        except StoreUnavailableError:
            await backoff.wait()
        except (KnollError, ValueError) as error:
            log.error("secrets not encrypted", error=str(error))
            return


async def _objects(redis: "Redis", keyring: Keyring, resource: str) -> int:
    exchange = redis.register_script(_EXCHANGE_FIELD)
    stored = await cast(Awaitable[dict[bytes, bytes]], redis.hgetall(keys.objects(resource)))
    changed = 0
    for field, value in stored.items():
        version, _, data = value.partition(b"\n")
        if not _is_current(data, keyring):
            subject = object_subject(resource, field.decode())
            sealed = keyring.seal(keyring.open(data, subject), subject)
            fresh = version + b"\n" + sealed
            # A value that has changed meanwhile was written by a process that has the newest key.
            changed += int(await exchange(keys=[keys.objects(resource)], args=[field, value, fresh]))
    return changed


async def _token_key(redis: "Redis", keyring: Keyring) -> int:
    stored = cast(bytes | None, await redis.get(keys.TOKEN_KEY))
    if stored is None or _is_current(stored, keyring):
        return 0
    sealed = keyring.seal(keyring.open(stored, TOKEN_KEY_SUBJECT), TOKEN_KEY_SUBJECT)
    return int(await redis.register_script(_EXCHANGE)(keys=[keys.TOKEN_KEY], args=[stored, sealed]))


async def _history(redis: "Redis", keyring: Keyring) -> int:
    """Truncate the history after the last event of a Secret that no key can decrypt; returns the number of events."""
    last, position = 0, "-"
    while True:
        entries: Any = await redis.xrange(keys.EVENTS, position, "+", count=_BATCH)
        for entry_id, fields in entries:
            if fields[b"r"].decode() in SEALED_KINDS:
                envelope = fields[b"e"].partition(b"\n")[2]
                if not is_sealed(envelope) or key_id(envelope) not in keyring.ids:
                    last = version_of(entry_id)
        if len(entries) < _BATCH:
            break
        position = f"({entries[-1][0].decode()}"
    return int(await redis.xtrim(keys.EVENTS, minid=f"{last + 1}-0", approximate=False)) if last else 0


async def _rewrite_file(redis: "Redis") -> None:
    try:
        await redis.bgrewriteaof()
    except RedisError as error:
        log.warning(
            "the append-only file of Redis still contains the replaced values: run BGREWRITEAOF", error=str(error)
        )


def _is_current(data: bytes, keyring: Keyring) -> bool:
    return is_sealed(data) and key_id(data) == keyring.current
