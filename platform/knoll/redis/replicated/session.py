"""The connections to one primary in one epoch. They end together.

The role, epoch and replicas of the server are polled. A session ends when the server stops answering, when it is no
longer the primary of this epoch, and when it has too few replicas: it may be cut off, and its replies outdated.

A frozen primary that continues must not acknowledge a write after another server was promoted, although a replica may
still follow it. The session therefore ends before sentinels can have promoted another server: the polling interval and
the time for an answer are together shorter than the time after which sentinels consider a server to be down.
"""

import asyncio

import structlog

from knoll.redis.address import Address
from knoll.redis.connection import RedisConnection, open_connection, packed
from knoll.redis.replicated.discovery import Primary, Replication
from knoll.redis.replicated.writes import AcknowledgedWrites
from knoll.redis.reply_errors import RedisReplyError
from knoll.values.errors import KnollError

log = structlog.get_logger()

INFO = packed("INFO", "replication")
_QUESTION_SHARE, _ANSWER_SHARE = 0.2, 0.6
"""Polling interval and time for an answer, as shares of the time after which sentinels consider a server down."""
_QUESTION_SECONDS, _ANSWER_SECONDS = 1.0, 5.0
"""Upper limits of both, which are used without sentinels."""


def question_seconds(down_after: float) -> float:
    """Return the interval at which the primary is polled."""
    return min(down_after * _QUESTION_SHARE, _QUESTION_SECONDS) or _QUESTION_SECONDS


def answer_seconds(down_after: float) -> float:
    """Return how long the primary may reply nothing while a command waits."""
    return min(down_after * _ANSWER_SHARE, _ANSWER_SECONDS) if down_after else _ANSWER_SECONDS


class Session:
    """See the module's docstring."""

    def __init__(self, address: Address, epoch: str, commands: RedisConnection, primary: Primary) -> None:
        self.address, self.epoch, self.commands, self.primary = address, epoch, commands, primary
        self._question_seconds = question_seconds(primary.down_after)
        self._connections = [commands]
        self._writes: AcknowledgedWrites | None = None
        self._opening_writes = asyncio.Lock()
        self._asking = asyncio.create_task(self._ask(), name="redis session")
        self._reason = "the session ended"
        commands.lost.add_done_callback(lambda _: self.end("the connection of the commands was lost"))

    @property
    def is_open(self) -> bool:
        return self.commands.is_open

    def attach(self, connection: RedisConnection) -> None:
        """Add a connection, which ends together with this session."""
        self._connections = [each for each in self._connections if each.is_open]
        self._connections.append(connection)
        if not self.is_open:
            connection.end(self._reason)

    async def writes(self, name: str) -> AcknowledgedWrites:
        """Return the connection for writes. Raises: StoreUnavailableError."""
        if self._writes is not None and self._writes.connection.is_open:
            return self._writes
        async with self._opening_writes:
            if self._writes is None or not self._writes.connection.is_open:
                connection = await open_connection(self.address, name, connect_seconds=self.primary.connect_seconds)
                self.attach(connection)
                self._writes = AcknowledgedWrites(connection, self.address.replicas)
            return self._writes

    def end(self, reason: str) -> None:
        """End all connections; commands without a reply fail with the reason."""
        if self._asking.done() and not any(connection.is_open for connection in self._connections):
            return
        self._reason = reason
        self._asking.cancel()
        for connection in self._connections:
            if connection.is_open:
                connection.end(reason)

    async def _ask(self) -> None:
        while True:
            await asyncio.sleep(self._question_seconds)
            try:
                problem = problem_of(Replication.parse(await self.commands.submit(INFO)), self.address, self.epoch)
            except (KnollError, RedisReplyError) as error:
                problem = str(error)
            if problem:
                log.warning("redis session ended", server=str(self.address), reason=problem)
                asyncio.get_running_loop().call_soon(self.end, problem)
                return


def problem_of(replication: Replication, address: Address, epoch: str) -> str:
    """Return why a server must not be used as the primary of an epoch; empty if it may.

    Args:
        address: with the number of replicas that the epoch began with.
        epoch: empty for any epoch.
    """
    required = replication.required(address)
    if not replication.is_primary:
        return f"{address} is not the primary"
    if epoch and replication.replication_id != epoch:
        return f"{address} became the primary again"
    if epoch and required != address.replicas:
        return f"{address} requires {required} replicas now, not {address.replicas}"
    if replication.replicas < required:
        return f"{address} has {replication.replicas} of {required} replicas"
    return ""
