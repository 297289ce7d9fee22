"""Connections from another network namespace: a client on a machine of `tests/machines.py`."""

import asyncio
import ctypes
import os
import socket
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from functools import partial
from pathlib import Path

import aiohttp

_NET = 0x40000000
"""CLONE_NEWNET of sched.h."""
Streams = tuple[asyncio.StreamReader, asyncio.StreamWriter]


class Client:
    """Opens connections in one network namespace; a socket stays in the namespace where it was created."""

    def __init__(self, threads: ThreadPoolExecutor) -> None:
        self._threads = threads

    def socket(self) -> socket.socket:
        """Return a new TCP socket."""
        return self._threads.submit(_new_socket).result()

    async def connect(self, address: str, port: int) -> Streams:
        """Connect to an IPv4 address."""
        connection = self.socket()
        try:
            await asyncio.get_running_loop().sock_connect(connection, (address, port))
        except BaseException:
            connection.close()
            raise
        return await asyncio.open_connection(sock=connection)

    def session(self, url: str) -> aiohttp.ClientSession:
        """Return a session of HTTP requests. Args: url: base of their URLs, with an IPv4 address."""
        connector = aiohttp.TCPConnector(limit=0, socket_factory=lambda _: self.socket(), happy_eyeballs_delay=None)
        return aiohttp.ClientSession(url, connector=connector)


@contextmanager
def client_in(namespace: str) -> Iterator[Client]:
    """Provide a client. Args: namespace: name, as in `ip netns list`."""
    # A namespace belongs to a thread: all sockets are created in one that has entered it.
    with ThreadPoolExecutor(1, initializer=partial(_enter, Path("/run/netns") / namespace)) as threads:
        yield Client(threads)


def _enter(namespace: Path) -> None:
    descriptor = os.open(namespace, os.O_RDONLY)
    try:
        if ctypes.CDLL(None, use_errno=True).setns(descriptor, _NET):
            raise OSError(ctypes.get_errno(), f"{namespace} cannot be entered")
    finally:
        os.close(descriptor)


def _new_socket() -> socket.socket:
    connection = socket.socket(socket.AF_INET, socket.SOCK_STREAM)
    connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    connection.setblocking(False)
    return connection
