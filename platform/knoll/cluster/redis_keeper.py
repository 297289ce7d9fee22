"""Keeps the Redis server and the sentinel of one manager as `knoll.cluster.redis_group` decides.

`python -m knoll.cluster.redis_keeper` runs on each manager. It listens on no port.
"""

import asyncio
import contextlib
import sys
from typing import Any

import structlog

from knoll.auth import key_files, redis_acl
from knoll.cluster import managers as groups
from knoll.cluster import redis_group
from knoll.cluster.agent import AgentError, targets
from knoll.cluster.managers import FORWARDER, PRIMARY_NAME
from knoll.cluster.node_folder import NodeFolder, NodeFolderError, protocol
from knoll.cluster.redis_group import SentinelState, ServerState, Step
from knoll.process import logs
from knoll.process.settings import AgentSettings
from knoll.process.until_stopped import until_stopped
from knoll.redis.address import Address
from knoll.redis.connection import RedisConnection, open_connection, packed
from knoll.redis.replicated.discovery import Replication, named_fields
from knoll.redis.reply_errors import RedisReplyError
from knoll.redis.single_client import all_replies
from knoll.values.errors import KnollError

log = structlog.get_logger()

SECONDS = 5.0
"""Interval at which the group is checked."""


class RedisKeeper:
    """The keeper of one manager."""

    def __init__(self, settings: AgentSettings, forwarder: str = FORWARDER) -> None:
        """
        Args: forwarder: host at which all servers of the group are reached.

        Raises: AgentError.
        """
        local = targets(settings.agent_services)
        if settings.node_dir is None or settings.keys_dir is None or not {_REDIS, _SENTINEL} <= local.keys():
            raise AgentError("KNOLL_NODE_DIR, KNOLL_KEYS_DIR and KNOLL_AGENT_SERVICES are required")
        self._folder, self._keys = NodeFolder(settings.node_dir), settings.keys_dir
        self._first = groups.first(settings.agent_first_manager)
        self._server, self._sentinel, self._forwarder = local[_REDIS], local[_SENTINEL], forwarder

    async def run(self) -> None:
        """Run until cancelled."""
        while True:
            try:
                await self.check()
            except (KnollError, RedisReplyError, OSError, LookupError, ValueError) as error:
                log.info("redis group not checked", error=str(error))
            await asyncio.sleep(SECONDS)

    async def check(self) -> list[Step]:
        """Check once; returns what was done. Raises: KnollError, RedisReplyError, OSError, LookupError, ValueError."""
        managers = self._folder.managers() or [self._first]
        login = Address(user=redis_acl.SENTINEL, password=key_files.group_password(self._keys, redis_acl.SENTINEL))
        async with (
            _connected(login.at(*self._server)) as server,
            _connected(login.at(*self._sentinel)) as sentinel,
        ):
            own, view = await _server_state(server), await _sentinel_state(sentinel)
            primary = await self._primary(login, view.primary_port)
            chosen = redis_group.steps(managers, own, primary, view)
            for step in chosen:
                match step:
                    case Step.REQUIRE_REPLICA:
                        await _require_replica(server)
                    case Step.SET_QUORUM:
                        quorum = redis_group.quorum(len(managers), primary)
                        await sentinel.submit(packed("SENTINEL", "SET", PRIMARY_NAME, "quorum", quorum))
                    case Step.FORGET:
                        await sentinel.submit(packed("SENTINEL", "RESET", PRIMARY_NAME))
                log.info("redis group changed", step=step.value, managers=[manager.name for manager in managers])
        return chosen

    async def _primary(self, login: Address, port: int) -> ServerState | None:
        try:
            async with _connected(login.at(self._forwarder, port)) as connection:
                return await _server_state(connection)
        except (KnollError, RedisReplyError):
            return None


_REDIS, _SENTINEL = protocol("redis"), protocol("sentinel")


@contextlib.asynccontextmanager
async def _connected(address: Address) -> Any:
    connection = await open_connection(address, "knoll-keeper")
    try:
        yield connection
    finally:
        connection.end("it was asked")


async def _server_state(connection: RedisConnection) -> ServerState:
    replication = Replication.parse(await connection.submit(packed("INFO", "replication")))
    return ServerState(replication.is_primary, replication.replicas, replication.has_minimum)


async def _sentinel_state(connection: RedisConnection) -> SentinelState:
    about = ("MASTER", "SENTINELS", "REPLICAS")
    primary, *others = await all_replies(
        [connection.submit(packed("SENTINEL", question, PRIMARY_NAME)) for question in about]
    )
    fields = named_fields(primary)
    ports = frozenset(int(named_fields(each)["port"]) for listed in others for each in listed)
    is_healthy = fields["flags"] == "master"
    return SentinelState(int(fields["port"]), is_healthy, int(fields["quorum"]), ports)


async def _require_replica(connection: RedisConnection) -> None:
    """In one transaction: a client that writes afterwards has learned that it has to wait for a replica."""
    commands = (
        ("MULTI",),
        ("CONFIG", "SET", "min-replicas-to-write", 1),
        ("CLIENT", "KILL", "TYPE", "normal", "SKIPME", "yes"),
        ("EXEC",),
        ("CONFIG", "REWRITE"),
    )
    await all_replies([connection.submit(packed(*command)) for command in commands])


def main() -> None:
    settings = AgentSettings.or_exit()
    logs.set_up(settings.log_level, settings.log_format, "redis-keeper")
    try:
        asyncio.run(until_stopped(RedisKeeper(settings).run()))
    except (KnollError, NodeFolderError, ValueError) as error:
        sys.exit(f"redis-keeper: {error}")


if __name__ == "__main__":
    main()
