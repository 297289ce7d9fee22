"""What an activator needs on one of several machines: table of nodes, certificate, and the port for other nodes."""

import asyncio
import socket
from collections.abc import Coroutine
from pathlib import Path
from typing import Any

from activator.frontend.relay_listener import RelayListener
from activator.routing.proxy_state import ProxyState
from activator.sync.node_certificate import NodeCertificate
from knoll.messages.nodes import Node
from knoll.tables.follower import follow_table
from knoll.tables.protocol import Table


class Relay:
    """Lets a worker reach other nodes, and be reached by them."""

    def __init__(self, proxy: ProxyState, folder: Path, table: Table[Node]) -> None:
        """Args: folder: contains the certificate of this node."""
        self._nodes = proxy.nodes
        self._certificate = NodeCertificate(folder, proxy.nodes)
        self._listener = RelayListener(proxy, lambda: self._certificate.accepting)
        self._table = table
        self._entries: dict[str, Node] = {}

    def works(self) -> list[Coroutine[Any, Any, None]]:
        """Return the coroutines that run until the worker ends."""
        following = follow_table(self._table, self._entries, self._changed, asyncio.Event())
        return [following, self._certificate.run()]

    def _changed(self, name: str) -> None:
        entry = self._entries.get(name)
        self._nodes.change(name, entry)
        if entry is None:
            self._listener.node_removed(name)

    def open(self, sockets: list[socket.socket]) -> None:
        """Accept connections of other nodes."""
        self._listener.open(sockets)

    async def close(self) -> None:
        """Stop accepting; open connections are kept."""
        await self._listener.close()
