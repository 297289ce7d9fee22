"""Sockets of connections between nodes: how they notice that the other machine is lost.

A machine without power, or without its network, sends no reset: connections to it are just silent. Keep-alive probes
make a healthy machine acknowledge something at least once a second, so silence tells both apart.
"""

import asyncio
import socket
import struct

LOST_SECONDS = 4
"""A connection ends when the other machine acknowledges nothing for this long."""
SILENT_SECONDS = 1.5
"""A connection to a node that failed otherwise ends after this silence; a healthy machine is never silent so long."""

_LAST_RECEIVED = struct.Struct("=52x2I")
"""In `struct tcp_info`: milliseconds since the last data, and since the last acknowledgement."""


def prepare(transport: asyncio.BaseTransport) -> None:
    """Set socket options: send small writes at once, and end the connection when the other machine is lost."""
    connection: socket.socket = transport.get_extra_info("socket")
    connection.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
    for option, value in (
        (socket.TCP_NODELAY, 1),
        (socket.TCP_KEEPIDLE, 1),
        (socket.TCP_KEEPINTVL, 1),
        (socket.TCP_KEEPCNT, LOST_SECONDS - 1),
        (socket.TCP_USER_TIMEOUT, LOST_SECONDS * 1000),
    ):
        connection.setsockopt(socket.IPPROTO_TCP, option, value)


def silent_seconds(transport: asyncio.Transport) -> float:
    """Return for how long the other machine has neither sent nor acknowledged anything; 0 if the connection ends."""
    connection: socket.socket | None = transport.get_extra_info("socket")
    if connection is None or transport.is_closing():
        return 0.0
    info = connection.getsockopt(socket.IPPROTO_TCP, socket.TCP_INFO, _LAST_RECEIVED.size)
    return float(min(_LAST_RECEIVED.unpack(info))) / 1000
