"""The forwarder of one machine of a cluster: offers the Redis servers and sentinels of all managers, and the primary.

`python -m knoll.cluster.redis_forwarder` runs on each machine of a cluster; see `knoll.cluster.managers` for its ports.
Connections to other machines go through their agents, with mutual TLS. Connections to the primary end as soon as
another server may replace it.
"""

import asyncio
import contextlib
import sys
from collections.abc import Callable, Sequence
from functools import partial
from ipaddress import ip_address

import structlog

from knoll.cluster import managers as groups
from knoll.cluster.agent import AgentError, targets
from knoll.cluster.forwarder import Connect, Egress, Remote, joined
from knoll.cluster.managers import PRIMARY_PORT, Manager
from knoll.cluster.node_folder import NodeFolder, NodeFolderError, protocol
from knoll.process import logs
from knoll.process.settings import AgentSettings
from knoll.process.until_stopped import until_stopped
from knoll.redis.address import Address
from knoll.redis.replicated.discovery import Primary
from knoll.redis.replicated.following import PrimaryFollower
from knoll.values.errors import KnollError, StoreUnavailableError

log = structlog.get_logger()

FILES_SECONDS = 1.0
"""Interval at which the list of managers and the certificate are checked for changes."""
PRIMARY_SECONDS = 1.0
"""How long a connection waits for a primary."""
_LOCALHOST = "127.0.0.1"
_REDIS, _SENTINEL = protocol("redis"), protocol("sentinel")
_Streams = tuple[asyncio.StreamReader, asyncio.StreamWriter]


class RedisForwarder:
    """The forwarder of one machine."""

    def __init__(self, settings: AgentSettings, base: int = PRIMARY_PORT) -> None:
        """
        Args: base: port of the primary.

        Raises: AgentError, NodeFolderError.
        """
        if settings.node_dir is None:
            raise AgentError("KNOLL_NODE_DIR is not set: only one of several machines has a forwarder")
        try:
            self._first = groups.first(settings.agent_first_manager)
        except ValueError as error:
            raise AgentError(f"KNOLL_AGENT_FIRST_MANAGER: {error}") from error
        self._folder, self._host, self._base = NodeFolder(settings.node_dir), settings.agent_host, base
        self._here = _LOCALHOST if ip_address(self._host).is_unspecified else self._host
        self._own = settings.node or self._folder.name
        self._local, self._port = targets(settings.agent_services), settings.agent_port
        self._managers: tuple[Manager, ...] = ()
        self._servers: dict[int, asyncio.Server] = {}
        self._egresses: dict[tuple[Manager, str], Egress] = {}
        self._follower: PrimaryFollower | None = None
        self._following: asyncio.Task[None] | None = None
        self._to_primary: set[asyncio.Task[None]] = set()
        self._changed = asyncio.Event()

    async def run(self) -> None:
        """Run until cancelled. Raises: AgentError: a port is taken."""
        await self._listen(self._base, self._accept_for_primary)
        stamp = self._folder.stamp()
        try:
            while True:
                await self._use(self._listed())
                await asyncio.sleep(FILES_SECONDS)
                if (now := self._folder.stamp()) != stamp:
                    self._load_certificate()
                    stamp = now
        finally:
            if self._following is not None:
                self._following.cancel()
                await asyncio.wait({self._following})
            for server in self._servers.values():
                server.close()

    def _listed(self) -> tuple[Manager, ...]:
        try:
            return tuple(self._folder.managers()) or (self._first,)
        except NodeFolderError as error:
            log.warning("managers not read", error=str(error))
            return self._managers or (self._first,)

    async def _use(self, managers: Sequence[Manager]) -> None:
        """Offer the servers of these managers, and follow their sentinels."""
        if tuple(managers) == self._managers:
            return
        self._managers = tuple(managers)
        self._egresses = {key: egress for key, egress in self._egresses.items() if key[0] in self._managers}
        ports: dict[int, Callable[..., object]] = {}
        for manager in managers:
            ports[manager.redis_port] = partial(self._accept, manager, _REDIS)
            ports[manager.sentinel_port] = partial(self._accept, manager, _SENTINEL)
        for port in set(self._servers) - set(ports) - {self._base}:
            self._servers.pop(port).close()
        for port in set(ports) & set(self._servers):  # the slot may belong to another manager now
            self._servers.pop(port).close()
        for port, accept in ports.items():
            await self._listen(port, accept)
        if self._following is not None:
            self._following.cancel()
            await asyncio.wait({self._following})
        where = groups.sentinels(managers, self._here)
        dial = partial(_here, where, self._here)
        self._follower = PrimaryFollower(where, "knoll-forwarder", dial, self._primary_changed)
        self._following = asyncio.create_task(self._follower.run(), name="primary follower")
        log.info("managers listed", managers=[manager.name for manager in managers])

    def _primary_changed(self) -> None:
        self._changed.set()
        self._changed = asyncio.Event()
        for task in self._to_primary:
            task.cancel()

    async def _listen(self, port: int, accept: Callable[..., object]) -> None:
        try:
            self._servers[port] = await asyncio.start_server(accept, self._host, port)  # type: ignore[arg-type]
        except OSError as error:
            raise AgentError(f"cannot listen on {self._host}:{port}: {error.strerror}") from error

    async def _accept(
        self, manager: Manager, service: str, reader: asyncio.StreamReader, writer: asyncio.StreamWriter
    ) -> None:
        await joined(reader, writer, self._connect(manager, service), service)

    async def _accept_for_primary(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        manager = await self._primary()
        if manager is None:
            writer.transport.abort()
            return
        task = asyncio.current_task()
        assert task is not None
        self._to_primary.add(task)
        try:
            await joined(reader, writer, self._connect(manager, _REDIS), _REDIS)
        except asyncio.CancelledError:
            writer.transport.abort()  # by `_primary_changed`: only this connection ends
        finally:
            self._to_primary.discard(task)

    async def _primary(self) -> Manager | None:
        """Return the manager with the primary, once there is one; None if there is none for a while."""
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(PRIMARY_SECONDS):
                while True:
                    primary = self._follower.primary if self._follower is not None else None
                    if primary is not None:
                        return next((each for each in self._managers if each.redis_port == primary.port), None)
                    await self._changed.wait()
        return None

    def _connect(self, manager: Manager, service: str) -> Connect:
        if manager.name == self._own:
            return partial(self._connect_here, service)
        key = (manager, service)
        if key not in self._egresses:
            remote = Remote(manager.name, manager.address, self._port, service)
            self._egresses[key] = Egress(self._folder, remote)
        return self._egresses[key].connect

    async def _connect_here(self, service: str) -> _Streams:
        if service not in self._local:
            raise OSError(f"this machine has no {service}")
        host, port = self._local[service]
        return await asyncio.open_connection(host, port)

    def _load_certificate(self) -> None:
        try:
            for egress in self._egresses.values():
                self._folder.load(egress.context)
        except NodeFolderError as error:
            log.warning("certificate not read", error=str(error))


def _here(where: Address, host: str, primary: Primary) -> Address:
    """Return the address of a primary at this forwarder itself. Raises: StoreUnavailableError."""
    if not groups.REDIS_BASE < primary.port <= groups.REDIS_BASE + groups.SLOTS:
        raise StoreUnavailableError(f"sentinels name {primary.host}:{primary.port}, which is no manager")
    return where.at(host, primary.port)


def main() -> None:
    settings = AgentSettings.or_exit()
    logs.set_up(settings.log_level, settings.log_format, "redis-forwarder")
    try:
        asyncio.run(until_stopped(RedisForwarder(settings).run()))
    except (KnollError, OSError) as error:
        sys.exit(f"redis-forwarder: {error}")


if __name__ == "__main__":
    main()
