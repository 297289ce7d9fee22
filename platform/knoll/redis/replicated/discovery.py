"""Which server is the primary, according to the sentinels and to the server itself.

All sentinels are queried at once; after a majority has answered, the others have another 0.2 s. The answer with the
highest configuration epoch counts: a sentinel that was cut off still names the previous primary.

A primary that sentinels are about to replace is not used, even if it answers. A server that was frozen and continues
while one replica is promoted keeps the other replica for a second, and that replica confirms writes that are then lost.

Source: https://redis.io/docs/latest/develop/reference/sentinel-clients/
"""

import asyncio
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from knoll.redis.address import Address
from knoll.redis.connection import CONNECT_SECONDS, RedisConnection, open_connection, packed
from knoll.redis.reply_errors import RedisReplyError
from knoll.values.errors import KnollError, StoreUnavailableError

SENTINEL_SECONDS = 1.0
"""How long a sentinel may take, to connect and to answer."""
_GRACE_SECONDS = 0.2
"""How long the remaining sentinels may take after a majority has answered."""
_NAMED_SHARE = 1 / 3
"""How long connecting to the primary that sentinels name may take, as a share of the time after which they consider a
server to be down. It is short: the server may be down, and another one about to be promoted."""
LAG_SECONDS = 3
"""Replicas acknowledge once a second; one that has not done so for longer than this does not count."""


@dataclass(frozen=True, slots=True)
class Primary:
    """The primary as sentinels name it."""

    host: str
    port: int
    down_after: float = 0.0
    """Seconds after which sentinels consider a silent server to be down; 0 without sentinels."""
    rank: tuple[int, bool] = (0, False)
    """Configuration epoch, and whether a promotion has just succeeded. The newest answer has the highest rank."""
    flags: frozenset[str] = frozenset()
    """Flags of the primary in the sentinel's answer, such as `o_down`."""

    @property
    def place(self) -> tuple[str, int]:
        return self.host, self.port

    @property
    def configuration(self) -> int:
        """Configuration epoch; each promotion raises it."""
        return self.rank[0]

    @property
    def connect_seconds(self) -> float:
        """How long a connection may take."""
        return min(self.down_after * _NAMED_SHARE, CONNECT_SECONDS) if self.down_after else CONNECT_SECONDS


@dataclass(frozen=True, slots=True)
class Replication:
    """The reply of a server to `INFO replication`."""

    is_primary: bool
    replication_id: str
    """Changes with each promotion."""
    replicas: int
    """Number of connected replicas that acknowledged something within `LAG_SECONDS`."""
    has_minimum: bool = False
    """Whether the server refuses writes without a replica (`min-replicas-to-write`)."""

    @classmethod
    def parse(cls, text: bytes) -> "Replication":
        """Parse the reply. Raises: StoreUnavailableError: a field is missing or invalid."""
        try:
            fields = dict(line.split(":", 1) for line in text.decode().splitlines() if ":" in line)
            replicas = [
                dict(part.split("=", 1) for part in value.split(","))
                for name, value in fields.items()
                if name.startswith("slave") and name[5:].isdigit()
            ]
            good = [each for each in replicas if each["state"] == "online" and 0 <= int(each["lag"]) <= LAG_SECONDS]
            has_minimum = "min_slaves_good_slaves" in fields
            return cls(fields["role"] == "master", fields["master_replid"], len(good), has_minimum)
        except (LookupError, ValueError) as error:
            raise StoreUnavailableError(
                f"Redis is unavailable: its reply to INFO replication has no valid field {error}"
            ) from error

    def required(self, address: Address) -> int:
        """Return how many replicas must have a write before it is acknowledged. Args: address: of this server."""
        return int(self.has_minimum) if address.asks_for_replicas else address.replicas


async def find_primary(where: Address, name: str) -> Primary:
    """Return the primary. Raises: StoreUnavailableError: no sentinel names one, or it is about to be replaced.

    Args:
        where: with or without sentinels.
        name: of the connections, shown by `CLIENT LIST`.
    """
    if not where.sentinels:
        return Primary(where.host, where.port)
    answers, problems = await _all_answers(where, name)
    if not answers:
        reasons = "; ".join(problems)
        raise StoreUnavailableError(f"Redis is unavailable: no sentinel names its primary: {reasons}")
    primary = newest(answers)
    if reason := doubt_about(primary, answers):
        raise StoreUnavailableError(f"Redis is unavailable: {reason}")
    return primary


async def _all_answers(where: Address, name: str) -> tuple[list[Primary], list[str]]:
    """Return the answers of the sentinels, and why others did not answer."""
    pending = {asyncio.create_task(_ask(sentinel, where.primary_name, name)) for sentinel in where.sentinels}
    answers: list[Primary] = []
    problems: list[str] = []
    try:
        while pending:
            seconds = _GRACE_SECONDS if len(answers) * 2 > len(where.sentinels) else None
            done, pending = await asyncio.wait(pending, timeout=seconds, return_when=asyncio.FIRST_COMPLETED)
            if not done:
                break
            for task in done:
                try:
                    answers.append(task.result())
                except (KnollError, RedisReplyError) as error:
                    problems.append(str(error))
    finally:
        for task in pending:
            task.cancel()
        await asyncio.gather(*pending, return_exceptions=True)
    return answers, problems


def newest(answers: Sequence[Primary]) -> Primary:
    """Return the newest answer. Args: answers: at least one."""
    return max(answers, key=lambda answer: answer.rank)


def doubt_about(primary: Primary, answers: Sequence[Primary]) -> str:
    """Return why a primary may be about to be replaced; empty if it is not. Args: answers: of all sentinels."""
    if primary.rank[1]:
        return ""  # it is the replacement
    about_it = [answer.flags for answer in answers if answer.rank == primary.rank]
    if any("o_down" in flags or "failover_in_progress" in flags for flags in about_it):
        return f"sentinels replace {primary.host}:{primary.port}"
    if sum("s_down" in flags for flags in about_it) * 2 > len(answers):
        return f"sentinels do not reach {primary.host}:{primary.port}"
    return ""


async def open_sentinel(sentinel: Address, name: str, **options: Any) -> RedisConnection:
    """Connect to a sentinel. Args: options: more arguments of `open_connection`. Raises: StoreUnavailableError."""
    return await open_connection(
        sentinel, name, connect_seconds=SENTINEL_SECONDS, response_seconds=SENTINEL_SECONDS, **options
    )


async def _ask(sentinel: Address, primary_name: str, name: str) -> Primary:
    try:
        async with asyncio.timeout(SENTINEL_SECONDS):
            return await _answer(sentinel, primary_name, name)
    except TimeoutError:
        raise StoreUnavailableError(f"sentinel {sentinel} does not answer") from None


async def _answer(sentinel: Address, primary_name: str, name: str) -> Primary:
    connection = await open_sentinel(sentinel, name)
    try:
        place, described = await asyncio.gather(
            connection.submit(packed("SENTINEL", "GET-MASTER-ADDR-BY-NAME", primary_name)),
            connection.submit(packed("SENTINEL", "MASTER", primary_name)),
        )
    finally:
        connection.end("it was asked")
    if place is None:
        raise StoreUnavailableError(f"Redis is unavailable: {sentinel} knows no primary {primary_name}")
    host, port = place[0].decode(), int(place[1])
    fields = named_fields(described)
    # During a fail-over the sentinel that carries it out names the promoted server before all others do.
    switching = (host, port) != (fields["ip"], int(fields["port"]))
    down_after = int(fields["down-after-milliseconds"]) / 1000
    flags = frozenset(fields["flags"].split(","))
    return Primary(host, port, down_after, (int(fields["config-epoch"]), switching), flags)


def named_fields(reply: Any) -> Mapping[str, str]:
    """Return the fields of a reply: a map, or, from older servers, a list of alternating names and values."""
    pairs = reply.items() if isinstance(reply, dict) else zip(reply[::2], reply[1::2], strict=True)
    return {name.decode(): value.decode() for name, value in pairs}
