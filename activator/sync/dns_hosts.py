"""Cluster-local names for a DNS server: a file for each Route, in a folder that the server watches.

`file_name` and `hosts_lines` decide; `HostsFiles` writes. The format is hosts(5), the folder a `hostsdir` of dnsmasq,
which notices files that are renamed into it or removed.
"""

import contextlib
import os
from collections.abc import Mapping
from pathlib import Path

import structlog

from knoll.messages.routing import RouteEntry
from knoll.values.names import CLUSTER_DOMAIN

log = structlog.get_logger()

_ENDINGS = (f".{CLUSTER_DOMAIN}", f".{CLUSTER_DOMAIN.partition('.')[0]}")
"""Suffixes for which the server is authoritative. `name.namespace` has none of them: the search list of an instance
completes it. A server with its IPv4 address only would forward queries for its IPv6 address to the internet."""


def file_name(route: str) -> str:
    """Return the file name of a Route. Args: route: `namespace/name`; a namespace has no dot in its name."""
    return route.replace("/", ".")


def hosts_lines(entry: RouteEntry, address: str) -> str:
    """Return the content of a Route's file: a line for each name; empty if it has none.

    Args:
        entry: its entry in the routing table.
        address: of the internal gateway, to which all names resolve.
    """
    hosts = sorted(host for host in entry.local_hosts if host.endswith(_ENDINGS))
    return "".join(f"{address} {host}\n" for host in hosts)


class HostsFiles:
    """The files of all Routes. Only changed files are written: weights change often, names rarely."""

    def __init__(self, folder: Path, address: str) -> None:
        """Args: folder: created if missing; it must have no other files."""
        self._folder, self._address = folder, address
        self._written: dict[str, str] = {}
        folder.mkdir(parents=True, exist_ok=True)
        for file in folder.iterdir():  # files of an earlier process stay until the table was read
            with contextlib.suppress(OSError, UnicodeDecodeError):
                self._written[file.name] = file.read_text()

    def replace(self, entries: Mapping[str, RouteEntry]) -> None:
        """Write the files of these Routes, and remove all others."""
        files = {file_name(route): hosts_lines(entry, self._address) for route, entry in entries.items()}
        for name in [*self._written]:
            if name not in files:
                self._put(name, "")
        for name, text in files.items():
            self._put(name, text)

    def change(self, route: str, entry: RouteEntry | None) -> None:
        """Write the file of one Route; None removes it."""
        self._put(file_name(route), "" if entry is None else hosts_lines(entry, self._address))

    def _put(self, name: str, text: str) -> None:
        if self._written.get(name, "") == text:
            return
        file = self._folder / name
        try:
            if text:
                _replace(file, text)
                self._written[name] = text
            else:
                file.unlink(missing_ok=True)
                del self._written[name]
        except OSError as error:  # requests from outside do not need names
            log.error("cluster-local name not written", hint="is the disk full?", file=str(file), error=str(error))


def _replace(file: Path, text: str) -> None:
    beside = file.with_name(f".{file.name}.{os.getpid()}")  # the server ignores names that start with a dot
    try:
        beside.write_text(text)
        beside.chmod(0o644)
        beside.rename(file)
    except OSError:
        beside.unlink(missing_ok=True)
        raise
