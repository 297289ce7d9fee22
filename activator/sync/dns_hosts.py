"""Cluster-local names for a DNS server: each Route's in a file of its own, in a folder that the server watches.

`file_of` and `lines_of` decide (pure); `NameFiles` writes. The form is hosts(5), the folder a `hostsdir` of dnsmasq,
which takes over what is renamed into it and what goes.
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
"""Of the names that the server answers for alone. `name.namespace` is none of them: an instance's search list completes
it, because a server that knows only its IPv4 address would ask the world for its IPv6 address."""


def file_name(route: str) -> str:
    """The file of a Route. Args: route: `namespace/name`; no namespace has a dot in its name."""
    return route.replace("/", ".")


def hosts_lines(entry: RouteEntry, address: str) -> str:
    """What stands in a Route's file: a line for each name; empty for a Route that has none.

    Args:
        entry: its entry in the routing table.
        address: of the internal gateway, where all names lead.
    """
    found = sorted(host for host in entry.local_hosts if host.endswith(_ENDINGS))
    return "".join(f"{address} {host}\n" for host in found)


class HostsFiles:
    """The files of all Routes. Only what differs is written: weights change often, names seldom."""

    def __init__(self, folder: Path, address: str) -> None:
        """Args: folder: made when missing; nothing else may be in it."""
        self._folder, self._address = folder, address
        self._written: dict[str, str] = {}
        folder.mkdir(parents=True, exist_ok=True)
        for file in folder.iterdir():  # of an earlier process: the names stay answered until the table says otherwise
            with contextlib.suppress(OSError, UnicodeDecodeError):
                self._written[file.name] = file.read_text()

    def replace(self, entries: Mapping[str, RouteEntry]) -> None:
        """Have exactly these Routes' names."""
        wanted = {file_name(route): hosts_lines(entry, self._address) for route, entry in entries.items()}
        for name in [*self._written]:
            if name not in wanted:
                self._put(name, "")
        for name, text in wanted.items():
            self._put(name, text)

    def change(self, route: str, entry: RouteEntry | None) -> None:
        """One Route's entry changed, or went (None)."""
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
        except OSError as error:  # requests from outside go on without
            log.error("a cluster-local name cannot be written; is the disk full?", file=str(file), error=str(error))


def _replace(file: Path, text: str) -> None:
    beside = file.with_name(f".{file.name}.{os.getpid()}")  # the server leaves out what begins with a dot
    try:
        beside.write_text(text)
        beside.chmod(0o644)
        beside.rename(file)
    except OSError:
        beside.unlink(missing_ok=True)
        raise
