"""Reads any number of streams with one blocking XREAD, and hands each reader its entries.

After each reply it pauses for some milliseconds: a burst of entries then costs one command instead of one for each. The
first entry after a silence is not delayed.
"""

import asyncio
from collections import deque
from collections.abc import Awaitable, Callable, Sequence

from knoll.redis.connection import RedisConnection, Reply, packed
from knoll.values.errors import StoreUnavailableError

GATHER_SECONDS = 0.005
"""Pause after each reply."""
CONTROL_GATHER_SECONDS = 0.02
"""The same for processes that are not on the data path: an apply is a burst of writes within tens of milliseconds."""
PROMPT_GATHER_SECONDS = 0.001
"""The same where a cold start waits for the second entry: leader and nodes exchange several within milliseconds."""
SILENCE_SECONDS = 10.0
"""Interval at which a reader without entries is notified."""
BATCH = 256
"""Entries of one stream in a reply."""
_WAITING_BATCHES = 4
"""Batches that wait for a slow reader; then its stream is left out until it has read them."""
_FULL_SECONDS = 0.02
"""How long a stream is left out before the reader is looked at again."""

StreamEntry = tuple[bytes, dict[bytes, bytes]]
"""One entry of a stream: ID and fields."""


def version_of(entry_id: bytes) -> int:
    """Return the version in an entry's ID `<version>-0`."""
    return int(entry_id.partition(b"-")[0])


def entry_of(reply: Sequence[Reply]) -> StreamEntry:
    """Return an entry as Redis replies it: the ID, and names and values in turn."""
    entry_id, flat = reply
    return entry_id, dict(zip(flat[::2], flat[1::2], strict=True))


def _order(entry_id: bytes) -> tuple[int, int]:
    milliseconds, _, sequence = entry_id.partition(b"-")
    return int(milliseconds), int(sequence or 0)


class StreamReader:
    """One stream, read in order. It costs nothing until it is first read."""

    def __init__(self, streams: "StreamMultiplexer", key: str, after: str) -> None:
        self._streams, self.key = streams, key.encode()
        self._batches: deque[list[StreamEntry]] = deque()
        self._arrived = asyncio.Event()
        self._error: Exception | None = None
        self._joined = False
        self._consumed = after.encode()
        self.position = self._consumed
        """ID of the last entry that Redis has replied."""
        self.heard_at = 0.0

    async def read(self) -> list[StreamEntry]:
        """Wait for the next entries; empty after `SILENCE_SECONDS` without any.

        Raises: StoreUnavailableError, StoreForbiddenError: the next call goes on after the last entry returned.
        """
        if not self._joined:
            self._joined = True
            self._streams.join(self)
        if not self._batches and self._error is None:
            self._arrived.clear()
            await self._arrived.wait()
        if self._batches:
            batch = self._batches.popleft()
            if batch:
                self._consumed = batch[-1][0]
            return batch
        error = self._error
        self.seek(self._consumed.decode())
        assert error is not None
        raise error

    def seek(self, after: str) -> None:
        """Go on after another ID."""
        self.close()
        self._batches.clear()
        self._error, self._joined = None, False
        self._consumed = self.position = after.encode()

    def close(self) -> None:
        """Read no further."""
        self._streams.leave(self)

    # For `StreamMultiplexer`

    @property
    def is_full(self) -> bool:
        return len(self._batches) >= _WAITING_BATCHES

    def put(self, batch: list[StreamEntry], now: float) -> None:
        if batch:
            self.position = batch[-1][0]
        self.heard_at = now
        self._batches.append(batch)
        self._arrived.set()

    def fail(self, error: Exception) -> None:
        self._error = error
        self._arrived.set()


class StreamMultiplexer:
    """All readers of a client. It has a connection of its own while there are readers."""

    def __init__(self, open_connection: Callable[[], Awaitable[RedisConnection]], gather_seconds: float) -> None:
        self._open, self._gather_seconds = open_connection, gather_seconds
        self._readers: list[StreamReader] = []
        self._connection: RedisConnection | None = None
        self._task: asyncio.Task[None] | None = None
        self._reply: asyncio.Future[Reply] | None = None

    def reader(self, key: str, after: str) -> StreamReader:
        """Return a reader of a stream from after an ID on, which must be closed."""
        return StreamReader(self, key, after)

    def join(self, reader: StreamReader) -> None:
        reader.heard_at = asyncio.get_running_loop().time()
        self._readers.append(reader)
        if self._task is None:
            self._task = asyncio.create_task(self._run(), name="redis streams")
        elif self._reply is not None:
            # The command that waits does not read this stream.
            self._reply.cancel()

    def leave(self, reader: StreamReader) -> None:
        if reader in self._readers:
            self._readers.remove(reader)
        if not self._readers and self._task is not None:
            self._task.cancel()
            self._task = None
            self._disconnect()

    async def aclose(self) -> None:
        connection = self._connection
        for reader in list(self._readers):
            reader.fail(StoreUnavailableError("Redis is unavailable: the client was closed"))
            self.leave(reader)
        if connection is not None:
            await connection.lost

    async def _run(self) -> None:
        try:
            while True:
                await asyncio.sleep(self._gather_seconds)
                if self._connection is None or not self._connection.is_open:
                    self._connection = await self._open()
                await self._read(self._connection)
        except Exception as error:
            readers, self._readers, self._task = self._readers, [], None
            self._disconnect()
            for reader in readers:
                # Each gets its own, because the traceback of an exception grows wherever it is raised.
                reader.fail(StoreUnavailableError(str(error)) if isinstance(error, StoreUnavailableError) else error)

    async def _read(self, connection: RedisConnection) -> None:
        positions: dict[bytes, bytes] = {}
        for reader in self._readers:
            if not reader.is_full:
                earlier = positions.setdefault(reader.key, reader.position)
                if earlier != reader.position and _order(reader.position) < _order(earlier):
                    positions[reader.key] = reader.position
        if not positions:
            await asyncio.sleep(_FULL_SECONDS)
            return
        block = self._block_milliseconds()
        command = packed("XREAD", "COUNT", BATCH, "BLOCK", block, "STREAMS", *positions, *positions.values())
        self._reply = connection.submit(command)
        try:
            reply = await self._reply
        except asyncio.CancelledError:
            current = asyncio.current_task()
            if current is not None and current.cancelling():
                raise
            # `join` has cancelled it. Redis sends nothing else on a connection that waits: it needs another one.
            self._disconnect()
            return
        finally:
            self._reply = None
        self._deliver(reply or {}, positions)

    def _block_milliseconds(self) -> int:
        if any(reader.is_full for reader in self._readers):
            return round(_FULL_SECONDS * 1000)
        first = min(reader.heard_at for reader in self._readers)
        left = first + SILENCE_SECONDS - asyncio.get_running_loop().time()
        return max(round(left * 1000), 1)

    def _deliver(self, reply: dict[bytes, list[Sequence[Reply]]], positions: dict[bytes, bytes]) -> None:
        """Pass entries to the readers. Args: positions: by stream, the entry after which it was read."""
        now = asyncio.get_running_loop().time()
        batches = {key: [entry_of(entry) for entry in entries] for key, entries in reply.items()}
        for reader in self._readers:
            entries = batches.get(reader.key, [])
            if entries and not reader.is_full:
                if reader.position != positions[reader.key]:  # they were read for another reader, which is behind
                    entries = [entry for entry in entries if _order(entry[0]) > _order(reader.position)]
                if entries:
                    reader.put(entries, now)
            # Readers whose interval ends soon are included, so that one pass notifies all of them.
            if now - reader.heard_at > SILENCE_SECONDS * 0.75 and not reader.is_full:
                reader.put([], now)

    def _disconnect(self) -> None:
        if self._connection is not None:
            self._connection.end("it is replaced")
            self._connection = None
