"""Reads the certificate of this node, for connections between nodes, and reads it again when the files change."""

import asyncio
import ssl
from pathlib import Path

import structlog

from activator.backend.nodes import Nodes
from knoll import __version__
from knoll.values import versions

log = structlog.get_logger()

AUTHORITY, CERTIFICATE, KEY = "ca.pem", "node.pem", "node.key.pem"
RELAY = "knoll-relay"
"""ALPN protocol of connections between nodes, with the minor version of the node that connects: `knoll-relay/1.4`."""
CHECK_SECONDS = 1.0
"""Interval between checks of the files."""


def contexts(folder: Path) -> tuple[ssl.SSLContext, ssl.SSLContext]:
    """Return the TLS context that accepts connections of other nodes, and the one that connects to them.

    Raises: OSError: a file is missing or not valid; ssl.SSLError is a subclass.
    """
    accepting = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    accepting.verify_mode = ssl.CERT_REQUIRED
    accepting.num_tickets = 0  # a resumed session would keep an old certificate
    connecting = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    for context in (accepting, connecting):
        context.minimum_version = ssl.TLSVersion.TLSv1_3
        context.load_verify_locations(folder / AUTHORITY)
        context.load_cert_chain(folder / CERTIFICATE, folder / KEY)
    accepting.set_alpn_protocols(versions.accepted_protocols(RELAY, __version__))
    connecting.set_alpn_protocols([versions.protocol(RELAY, __version__)])
    return accepting, connecting


class NodeCertificate:
    """The TLS contexts of new connections; open connections keep theirs."""

    def __init__(self, folder: Path, nodes: Nodes) -> None:
        """Args: nodes: its `context` is set to the one that connects."""
        self._folder = folder
        self._nodes = nodes
        self._read: tuple[tuple[int, int], ...] = ()
        self._reported = ""
        self.accepting: ssl.SSLContext | None = None
        """Accepts connections of other nodes."""
        self.update()

    async def run(self) -> None:
        """Run until cancelled."""
        while True:
            await asyncio.sleep(CHECK_SECONDS)
            self.update()

    def update(self) -> None:
        """Read the files if they changed. While they do not match, as during a renewal, the previous ones are used."""
        try:
            files = [(self._folder / name).stat() for name in (AUTHORITY, CERTIFICATE, KEY)]
            version = tuple((file.st_mtime_ns, file.st_ino) for file in files)
            if version == self._read:
                return
            self.accepting, self._nodes.context = contexts(self._folder)
            self._read, self._reported = version, ""
            log.info("node certificate read", folder=str(self._folder))
        except OSError as error:
            if str(error) != self._reported:
                self._reported = str(error)
                log.warning("node certificate not read", folder=str(self._folder), error=str(error))
