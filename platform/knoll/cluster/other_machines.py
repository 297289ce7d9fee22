"""HTTP clients for services of the other machines, whose addresses are in the table of nodes."""

import asyncio
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from knoll.cluster.node_folder import NodeFolder
from knoll.messages.nodes import NODES, Node
from knoll.redis.client import RedisClient
from knoll.tables.redis_tables import RedisTable
from knoll.values.errors import RuntimeUnavailableError

if TYPE_CHECKING:
    import httpx


@dataclass(frozen=True, slots=True)
class RemoteService:
    """A service of another machine."""

    name: str
    """Name of the node, as in its certificate; for the extension `sni_hostname` of requests."""
    url: str
    client: "httpx.AsyncClient"


class OtherMachines:
    """Clients for one service of the other machines; there are none on a single machine."""

    def __init__(self, redis: RedisClient | None, own: str, folder: Path | None, service: str = "logs") -> None:
        """
        Args:
            own: name of this machine's node; empty on a single machine.
            folder: folder with this machine's certificate.
            service: `logs`, `api` or `builder`.
        """
        self._redis, self._own, self._service = redis, own, service
        self._folder = NodeFolder(folder) if folder else None
        self._client: httpx.AsyncClient | None = None
        self._previous: httpx.AsyncClient | None = None
        """The client before the last renewal, for streams that it has open."""
        self._stamp = (0, 0)

    async def of(self, node: str) -> RemoteService | None:
        """Return the service of a machine; None if it is this one.

        Raises: RuntimeUnavailableError: the machine is not alive. StoreUnavailableError, NodeFolderError.
        """
        if self._redis is None or self._folder is None or not self._own or node in ("", self._own):
            return None
        entry = (await self._entries()).get(node)
        if entry is None:
            raise RuntimeUnavailableError(f'the node "{node}" does not respond')
        return await self._service_of(entry)

    async def all(self) -> list[RemoteService]:
        """Return the service of every other machine that is alive. Raises: StoreUnavailableError, NodeFolderError."""
        if self._redis is None or self._folder is None or not self._own:
            return []
        entries = await self._entries()
        return [await self._service_of(entry) for name, entry in sorted(entries.items()) if name != self._own]

    async def close(self) -> None:
        for client in (self._previous, self._client):
            if client is not None:
                await client.aclose()

    async def _entries(self) -> dict[str, Node]:
        assert self._redis is not None
        _, entries = await RedisTable(self._redis, NODES, Node).snapshot()
        return {name: entry for name, (_, entry) in entries.items()}

    async def _service_of(self, entry: Node) -> RemoteService:
        address = f"[{entry.address}]" if ":" in entry.address else entry.address
        return RemoteService(entry.name, f"https://{address}:{entry.admin_port}", await self._current())

    async def _current(self) -> "httpx.AsyncClient":
        """Return the client, a new one after a renewal of the certificate.

        Open streams keep the previous one until the next renewal, days later.
        """
        import httpx

        assert self._folder is not None
        stamp = await asyncio.to_thread(self._folder.stamp)
        if self._client is None or stamp != self._stamp:
            context = self._folder.client_context(self._service)
            client = httpx.AsyncClient(verify=context, timeout=httpx.Timeout(10.0, read=None))
            outdated, self._previous, self._client, self._stamp = self._previous, self._client, client, stamp
            if outdated is not None:
                await outdated.aclose()
            return client
        return self._client
