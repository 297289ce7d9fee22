"""Replicated tables on Redis; see `knoll.tables.protocol`.

A follower keeps its copy while Redis is unavailable, and also after Redis has restarted without the table: an empty
table means nothing until its writer has written to it again.
"""

from collections.abc import AsyncIterator, Mapping
from typing import Generic, TypeVar

import msgspec
import structlog

from knoll.concurrency.backoff import Backoff
from knoll.redis import keys
from knoll.redis.client import RedisClient, Script
from knoll.redis.streams import StreamEntry, entry_of, version_of
from knoll.tables.protocol import FOLLOWER_TTL, FieldChange, Reset
from knoll.values.errors import StoreForbiddenError, StoreUnavailableError

log = structlog.get_logger()
T = TypeVar("T")

HISTORY = 10_000
"""Number of changes kept; a follower that falls further behind gets the whole table."""
_FORGET_SECONDS = 60.0

# KEYS: entries, version, changes. ARGV: field, JSON, length of the history.
# Returns the version since which the field has this value.
_PUT = Script(
    """
local stored = redis.call('HGET', KEYS[1], ARGV[1])
if stored then
  local cut = string.find(stored, '\\n', 1, true)
  if string.sub(stored, cut + 1) == ARGV[2] then return string.sub(stored, 1, cut - 1) end
end
if redis.call('EXISTS', KEYS[2]) == 0 then
  local time = redis.call('TIME')
  redis.call('SET', KEYS[2], string.format('%.0f', time[1] * 1000 + math.floor(time[2] / 1000)))
end
local version = string.format('%.0f', redis.call('INCR', KEYS[2]))
redis.call('HSET', KEYS[1], ARGV[1], version .. '\\n' .. ARGV[2])
redis.call('XADD', KEYS[3], 'MAXLEN', ARGV[3], version .. '-0', 'f', ARGV[1], 'v', ARGV[2])
return version
""",
    writes=True,
    counter=2,
)
# KEYS: entries, version, changes. ARGV: field, length of the history.
# Returns a version at which the field is not there.
_REMOVE = Script(
    """
if redis.call('HDEL', KEYS[1], ARGV[1]) == 0 then return redis.call('GET', KEYS[2]) or '0' end
local version = string.format('%.0f', redis.call('INCR', KEYS[2]))
redis.call('XADD', KEYS[3], 'MAXLEN', ARGV[2], version .. '-0', 'f', ARGV[1])
return version
""",
    writes=True,
    counter=2,
)
# KEYS: followers. ARGV: follower, version, channel. Publishes the version if it has changed.
# Only that a follower exists is written to Redis' file: all else is said again within two seconds of a restart, and
# `followers` counts on that.
_ACKNOWLEDGE = Script("""
local now = redis.call('TIME')
local before = redis.call('HGET', KEYS[1], ARGV[1])
if before then redis.set_repl(redis.REPL_NONE) end
redis.call('HSET', KEYS[1], ARGV[1], ARGV[2] .. ' ' .. now[1] .. '.' .. string.format('%06d', now[2]))
if not before or string.match(before, '^%d+') ~= ARGV[2] then
  redis.call('PUBLISH', ARGV[3], ARGV[1] .. ' ' .. ARGV[2])
end
""")


class RedisTable(Generic[T]):
    """See `protocol.Table`. While Redis is unavailable, calls raise StoreUnavailableError and iterators wait.

    So they do while Redis does not permit it: calls raise StoreForbiddenError.
    """

    def __init__(
        self, redis: RedisClient, name: str, entry: type[T], *, history: int = HISTORY, prompt: bool = False
    ) -> None:
        """
        Args:
            redis: made by `client.connect`; stays the caller's.
            prompt: follow it through the client's `prompt_streams`.
            name: of the table.
            entry: type of its values.
            history: changes kept.
        """
        self._redis = redis
        self._name = name
        self._history = history
        self._streams = redis.prompt_streams if prompt else redis.streams
        self._encode = msgspec.json.Encoder(order="sorted").encode
        self._decode = msgspec.json.Decoder(entry).decode
        self._keys = [keys.table(name), keys.table_version(name), keys.table_changes(name)]
        self._followers = keys.table_followers(name)
        self._epoch_command = (("GET", keys.EPOCH),) if redis.is_replicated else ()

    async def put(self, field: str, value: T) -> int:
        return int(await self._redis.run(_PUT, self._keys, [field, self._encode(value), self._history]))

    async def remove(self, field: str) -> int:
        return int(await self._redis.run(_REMOVE, self._keys, [field, self._history]))

    async def snapshot(self) -> tuple[int, Mapping[str, tuple[int, T]]]:
        version, entries = await self._read_all()
        return version or 0, entries

    async def follow(self) -> AsyncIterator[Reset[T] | FieldChange[T]]:
        tip: int | None = None
        last: StreamEntry | None = None
        reader = self._streams.reader(self._keys[2], "0-0")
        backoff, doubtful = Backoff(), True
        try:
            while True:
                try:
                    if doubtful and (tip is None or not await self._joins_on(tip, last)):
                        version, entries = await self._read_all()
                        if version is None and tip is not None:
                            # Redis has restarted without the table, and its writer has not written to it yet.
                            await backoff.wait()
                            continue
                        tip, last = version or 0, None
                        reader.seek(f"{tip}-0")
                        yield Reset(tip, {field: value for field, (_, value) in entries.items()})
                    stream_entries = await reader.read()
                except (StoreUnavailableError, StoreForbiddenError) as error:
                    # Redis permits it later if this process is newer than the permissions, as during an upgrade.
                    if not doubtful or (isinstance(error, StoreForbiddenError) and not backoff.failures):
                        log.warning("table interrupted", table=self._name, error=str(error))
                    doubtful = True
                    await backoff.wait()
                    continue
                backoff.reset()
                # No change may also mean that Redis was emptied and continues with other versions.
                doubtful = not stream_entries
                for entry in stream_entries:
                    version = version_of(entry[0])
                    if tip is None or version != tip + 1:
                        tip, doubtful = None, True
                        break
                    tip, last = version, entry
                    yield self._change(version, entry)
        finally:
            reader.close()

    async def version(self) -> int:
        return int(await self._redis.execute("GET", self._keys[1]) or 0)

    async def acknowledge(self, follower: str, version: int) -> None:
        await self._redis.run(_ACKNOWLEDGE, [self._followers], [follower, version, keys.table_acks(self._name)])

    async def leave(self, follower: str) -> None:
        await self._redis.execute("HDEL", self._followers, follower)

    async def followers(self) -> dict[str, int]:
        return await self._living()

    async def follower_ages(self) -> dict[str, float]:
        """Return the seconds since the last heartbeat of each follower, also of those that are gone.

        Raises: StoreUnavailableError.
        """
        (seconds, micros), signs_of_life = await self._redis.transaction(("TIME",), ("HGETALL", self._followers))
        now = int(seconds) + int(micros) / 1e6
        return {name.decode(): now - float(value.partition(b" ")[2]) for name, value in signs_of_life.items()}

    async def acknowledgements(self) -> AsyncIterator[tuple[str, int]]:
        """See `Table.acknowledgements`; begins with the last one of each live follower, also after an interruption."""
        backoff = Backoff()
        while True:
            try:
                async with self._redis.subscribe(keys.table_acks(self._name)) as channel:
                    for follower, version in (await self._living()).items():
                        yield follower, version
                    backoff.reset()
                    while True:
                        message = await channel.next()
                        if message is not None:
                            name, _, acknowledged = message[1].decode().rpartition(" ")
                            yield name, int(acknowledged)
            except (StoreUnavailableError, StoreForbiddenError):
                await backoff.wait()

    async def _living(self) -> dict[str, int]:
        (seconds, micros), signs_of_life = await self._redis.transaction(("TIME",), ("HGETALL", self._followers))
        now = int(seconds) + int(micros) / 1e6
        living: dict[str, tuple[int, float]] = {}
        silent: dict[str, tuple[int, float]] = {}
        for follower, value in signs_of_life.items():
            version, _, seen = value.partition(b" ")
            age = now - float(seen)
            (living if age <= FOLLOWER_TTL else silent)[follower.decode()] = (int(version), age)
        if silent and await self._has_restarted(now):
            living |= silent
        elif gone := [follower for follower, (_, age) in silent.items() if age > _FORGET_SECONDS]:
            await self._redis.execute("HDEL", self._followers, *gone)
        return {follower: version for follower, (version, _) in living.items()}

    async def _has_restarted(self, now: float) -> bool:
        """Whether Redis has just started, or was just promoted.

        Its times are outdated then, and its followers are still reconnecting.
        """
        server, *epoch = await self._redis.pipeline(("INFO", "server"), *self._epoch_command)
        return uptime(server) <= FOLLOWER_TTL or now - began(*epoch) <= FOLLOWER_TTL

    async def _read_all(self) -> tuple[int | None, dict[str, tuple[int, T]]]:
        """The table's version, None when Redis has none, and its entries."""
        version, stored = await self._redis.transaction(("GET", self._keys[1]), ("HGETALL", self._keys[0]))
        entries = {}
        for field, value in stored.items():
            at, _, data = value.partition(b"\n")
            entry = self._readable(field.decode(), data)
            if entry is not None:
                entries[field.decode()] = (int(at), entry)
        return None if version is None else int(version), entries

    async def _joins_on(self, tip: int, last: StreamEntry | None) -> bool:
        """Whether Redis still counts on from `tip`, and still has what was read last."""
        version, entries = await self._redis.transaction(
            ("GET", self._keys[1]), ("XRANGE", self._keys[2], f"{tip}-0", "+", "COUNT", 2)
        )
        newest = int(version or 0)
        if newest < tip:
            return False
        first = next(map(entry_of, entries), None)
        if first is not None and version_of(first[0]) == tip:
            return last is None or first == last
        return newest == tip or (first is not None and version_of(first[0]) == tip + 1)

    def _change(self, version: int, entry: StreamEntry) -> FieldChange[T]:
        fields = entry[1]
        field = fields[b"f"].decode()
        value = self._readable(field, fields[b"v"]) if b"v" in fields else None
        return FieldChange(version, field, value)

    def _readable(self, field: str, data: bytes) -> T | None:
        """Decode an entry; None if this version cannot, because a newer one wrote a value that it does not have."""
        try:
            return self._decode(data)
        except msgspec.ValidationError as error:
            log.warning("table entry not readable", table=self._name, field=field, error=str(error))
            return None


def uptime(server: bytes) -> int:
    """Return the seconds since Redis started. Args: server: reply of `INFO server`."""
    lines = server.decode().splitlines()
    return int(next(line.partition(":")[2] for line in lines if line.startswith("uptime_in_seconds:")))


def began(epoch: bytes | None = None) -> float:
    """Return the epoch seconds at which the primary was promoted; 0 if it was not. Args: epoch: the stored value."""
    return int((epoch or b"0").rpartition(b" ")[2]) / 1000
