"""Encrypts values in Redis with the newest key: plain values when the API starts, and all of them after a rotation.

Each object is replaced only if it has not changed since it was read, and without a new version, because nothing changes
for watchers. The event history cannot be rewritten, so it is truncated after the last event that contains a Secret in
plain text or encrypted with a deleted key; watches that began earlier list again, as after any truncation. Redis then
rewrites its append-only file, which drops the old values.
"""

import structlog

from knoll.auth.token_key import shared_key
from knoll.concurrency.backoff import Backoff
from knoll.redis import keys
from knoll.redis.client import RedisClient, Script
from knoll.redis.encryption import (
    SEALED_KINDS,
    TOKEN_KEY_SUBJECT,
    Keyring,
    SealedError,
    is_sealed,
    key_id,
    object_subject,
)
from knoll.redis.reply_errors import RedisReplyError
from knoll.redis.streams import entry_of, version_of
from knoll.values.errors import KnollError, StoreUnavailableError

log = structlog.get_logger()

_BATCH = 512

# KEYS: objects. ARGV: field, value that was read, its replacement. Returns 1 when it was replaced.
_EXCHANGE_FIELD = Script(
    """
if redis.call('HGET', KEYS[1], ARGV[1]) ~= ARGV[2] then return 0 end
redis.call('HSET', KEYS[1], ARGV[1], ARGV[3])
return 1
""",
    writes=True,
)
# KEYS: objects. ARGV: field, value that was read.
_DISCARD_FIELD = Script(
    "if redis.call('HGET', KEYS[1], ARGV[1]) == ARGV[2] then redis.call('HDEL', KEYS[1], ARGV[1]) end",
    writes=True,
)
# KEYS: string. ARGV: value that was read, its replacement. Returns 1 when it was replaced.
_EXCHANGE = Script(
    """
if redis.call('GET', KEYS[1]) ~= ARGV[1] then return 0 end
redis.call('SET', KEYS[1], ARGV[2])
return 1
""",
    writes=True,
)


async def reseal(redis: RedisClient, keyring: Keyring) -> int:
    """Encrypt Secrets, the token key and the history with the keyring's newest key; returns how many values changed.

    Raises: StoreUnavailableError. SealedError: a value is encrypted with a key that the keyring does not have; values
        before it have been re-encrypted.
    """
    if not keyring.seals:
        return 0
    changed = sum([await _objects(redis, keyring, resource) for resource in sorted(SEALED_KINDS)])
    changed += await _token_key(redis, keyring)
    cut = await _history(redis, keyring)
    if changed or cut:
        log.info("secrets encrypted", values=changed, events_cut=cut, key=keyring.current)
        await _rewrite_file(redis)
    return changed


async def discard_unreadable(redis: RedisClient, keyring: Keyring) -> list[str]:
    """Delete the values that no key of the keyring can decrypt; returns their names.

    No event is recorded: values that cannot be read were in no list that a watch could follow.

    Raises: StoreUnavailableError.
    """
    discarded = []
    for resource in sorted(SEALED_KINDS):
        stored: dict[bytes, bytes] = await redis.execute("HGETALL", keys.objects(resource))
        for field, value in stored.items():
            subject = object_subject(resource, field.decode())
            if not _opens(keyring, value.partition(b"\n")[2], subject):
                await redis.run(_DISCARD_FIELD, [keys.objects(resource)], [field, value])
                discarded.append(subject)
    token_key: bytes | None = await redis.execute("GET", keys.TOKEN_KEY)
    if token_key is not None and not _opens(keyring, token_key, TOKEN_KEY_SUBJECT):
        await redis.execute("DEL", keys.TOKEN_KEY)
        discarded.append(TOKEN_KEY_SUBJECT)
    return discarded


def _opens(keyring: Keyring, data: bytes, subject: str) -> bool:
    try:
        keyring.open(data, subject)
    except SealedError:
        return False
    return True


async def at_start(redis: RedisClient, keyring: Keyring) -> None:
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


async def _objects(redis: RedisClient, keyring: Keyring, resource: str) -> int:
    stored: dict[bytes, bytes] = await redis.execute("HGETALL", keys.objects(resource))
    changed = 0
    for field, value in stored.items():
        version, _, data = value.partition(b"\n")
        if not _is_current(data, keyring):
            subject = object_subject(resource, field.decode())
            sealed = keyring.seal(keyring.open(data, subject), subject)
            fresh = version + b"\n" + sealed
            # A value that has changed meanwhile was written by a process that has the newest key.
            changed += int(await redis.run(_EXCHANGE_FIELD, [keys.objects(resource)], [field, value, fresh]))
    return changed


async def _token_key(redis: RedisClient, keyring: Keyring) -> int:
    stored: bytes | None = await redis.execute("GET", keys.TOKEN_KEY)
    if stored is None or _is_current(stored, keyring):
        return 0
    sealed = keyring.seal(keyring.open(stored, TOKEN_KEY_SUBJECT), TOKEN_KEY_SUBJECT)
    return int(await redis.run(_EXCHANGE, [keys.TOKEN_KEY], [stored, sealed]))


async def _history(redis: RedisClient, keyring: Keyring) -> int:
    """Truncate the history after the last event of a Secret that no key can decrypt; returns the number of events."""
    last, position = 0, "-"
    while True:
        replied = await redis.execute("XRANGE", keys.EVENTS, position, "+", "COUNT", _BATCH)
        entries = [entry_of(entry) for entry in replied]
        for entry_id, fields in entries:
            if fields[b"r"].decode() in SEALED_KINDS:
                envelope = fields[b"e"].partition(b"\n")[2]
                if not is_sealed(envelope) or key_id(envelope) not in keyring.ids:
                    last = version_of(entry_id)
        if len(entries) < _BATCH:
            break
        position = f"({entries[-1][0].decode()}"
    return int(await redis.execute("XTRIM", keys.EVENTS, "MINID", f"{last + 1}-0")) if last else 0


async def _rewrite_file(redis: RedisClient) -> None:
    try:
        await redis.execute("BGREWRITEAOF")
    except (KnollError, RedisReplyError) as error:
        log.warning(
            "the append-only file of Redis still contains the replaced values: run BGREWRITEAOF", error=str(error)
        )


def _is_current(data: bytes, keyring: Keyring) -> bool:
    return is_sealed(data) and key_id(data) == keyring.current
