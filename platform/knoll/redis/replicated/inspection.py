"""Checks the settings of a primary, its replicas and its sentinels: some may lose acknowledged writes, or delay a
fail-over. It connects to each of them."""

import asyncio
from collections.abc import Mapping, Sequence
from typing import Any

from knoll.redis.address import Address
from knoll.redis.connection import open_connection, packed
from knoll.redis.file_settings import SETTINGS, file_problems
from knoll.redis.replicated.discovery import find_primary, named_fields, open_sentinel
from knoll.redis.reply_errors import RedisReplyError
from knoll.values.errors import KnollError

MIN_DOWN_AFTER, MAX_DOWN_AFTER = 1.0, 5.0
"""Seconds. With less, a short pause of a server causes a fail-over; with more, writes are refused for longer."""
MAX_LAG = 10
_SETTINGS = (*SETTINGS, "min-replicas-to-write", "min-replicas-max-lag")
_TROUBLE = (KnollError, RedisReplyError)


def replication_problems(config: Mapping[str, str]) -> list[str]:
    """Return the settings with which a server may accept writes that are lost, each with a fix.

    Args: config: reply of CONFIG GET.
    """
    if int(config.get("min-replicas-to-write") or 0) < 1:
        return ["min-replicas-to-write is 0: set it to 1, or a primary that is cut off accepts writes that are lost"]
    lag = int(config.get("min-replicas-max-lag") or 0)
    if not 0 < lag <= MAX_LAG:
        return [f"min-replicas-max-lag is {lag}: set it to {MAX_LAG} or less"]
    return []


def sentinel_problems(fields: Mapping[str, str]) -> list[str]:
    """Return the problems of a sentinel's settings, each with a fix. Args: fields: reply of SENTINEL MASTER."""
    problems = []
    count, quorum = int(fields["num-other-sentinels"]) + 1, int(fields["quorum"])
    if count < 3:
        problems.append(f"there are {count} sentinels: run three, on different machines")
    if quorum * 2 <= count and count >= 3:
        problems.append(f"quorum is {quorum} of {count} sentinels: set it to {count // 2 + 1}")
    down_after = int(fields["down-after-milliseconds"]) / 1000
    if not MIN_DOWN_AFTER <= down_after <= MAX_DOWN_AFTER:
        problems.append(
            f"down-after-milliseconds is {round(down_after * 1000)}: set it to 1500, writes are refused for about two "
            "seconds longer"
        )
    return problems


async def inspect(where: Address, name: str) -> list[str]:
    """Query all servers and sentinels; return their problems, each with the address.

    Args: name: of the connections, shown by `CLIENT LIST`.
    """
    try:
        primary = await find_primary(where, name)
        address = where.at(primary.host, primary.port)
        replication = await _ask(address, name, "INFO", "replication")
    except _TROUBLE as error:
        return [str(error)]
    replicas = replicas_in(replication)
    problems = []
    if len(replicas) < max(where.replicas, 1):
        problems.append(f"{address} has {len(replicas)} replicas: a write needs {max(where.replicas, 1)}")
    elif where.replicas and len(replicas) == where.replicas:
        problems.append(
            f"{address} has {len(replicas)} replicas and a write needs {where.replicas}: writes stop when one is away"
        )
    servers = [address, *(where.at(host, port) for host, port in replicas)]
    for results in await asyncio.gather(
        *(_server(server, name) for server in servers),
        *(_sentinel(sentinel, where.primary_name, name) for sentinel in where.sentinels),
    ):
        problems += results
    return problems


def replicas_in(replication: bytes) -> Sequence[tuple[str, int]]:
    """Return host and port of each replica in a reply of `INFO replication`."""
    places = []
    for line in replication.decode().splitlines():
        name, _, value = line.partition(":")
        if name.startswith("slave") and name[5:].isdigit():
            fields = dict(part.split("=", 1) for part in value.split(","))
            places.append((fields["ip"], int(fields["port"])))
    return places


async def _server(address: Address, name: str) -> list[str]:
    try:
        reply = await _ask(address, name, "CONFIG", "GET", *_SETTINGS)
    except _TROUBLE as error:
        return [f"{address} cannot be checked: {error}"]
    config = {setting.decode(): value.decode() for setting, value in reply.items()}
    return [f"{address}: {problem}" for problem in (*file_problems(config), *replication_problems(config))]


async def _sentinel(sentinel: Address, primary_name: str, name: str) -> list[str]:
    try:
        connection = await open_sentinel(sentinel, name)
        try:
            fields = named_fields(await connection.submit(packed("SENTINEL", "MASTER", primary_name)))
        finally:
            connection.end("it was asked")
    except _TROUBLE as error:
        return [f"sentinel {sentinel} cannot be checked: {error}"]
    return [f"sentinel {sentinel}: {problem}" for problem in sentinel_problems(fields)]


async def _ask(address: Address, name: str, *command: str) -> Any:
    connection = await open_connection(address, name)
    try:
        return await connection.submit(packed(*command))
    finally:
        connection.end("it was asked")
