"""A copy of the routing table as the controllers wrote it, indexed by the hosts that its entries claim. No I/O."""

from collections.abc import Iterator, MutableMapping
from dataclasses import dataclass

from knoll.messages.hosts import Claim, Owners
from knoll.messages.routing import RouteEntry

Versioned = tuple[int, RouteEntry]
"""An entry, preceded by the version of the table that added it."""


@dataclass(frozen=True, slots=True)
class _Claimed:
    claim: Claim


class RoutingMirror(MutableMapping[str, Versioned]):
    """Entries by field of the table, `namespace/name`."""

    def __init__(self) -> None:
        self._entries: dict[str, Versioned] = {}
        self._hosts: Owners[_Claimed] = Owners()

    def rival(self, path: str, host: str) -> Claim | None:
        """The strongest claim to a host by an entry other than `path`; None if there is none."""
        others = [claimed.claim for claimed in self._hosts.claims(host) if claimed.claim.path != path]
        return min(others, default=None)

    def contenders(self, path: str) -> set[str]:
        """Paths of the other entries that claim one of the hosts of `path`'s entry."""
        entry = self._entries.get(path)
        hosts = entry[1].hosts if entry is not None else ()
        return {claimed.claim.path for host in hosts for claimed in self._hosts.claims(host)} - {path}

    def __getitem__(self, path: str) -> Versioned:
        return self._entries[path]

    def __setitem__(self, path: str, value: Versioned) -> None:
        before = self._entries.get(path)
        self._entries[path] = value
        if before is not None and before[1].hosts.keys() == value[1].hosts.keys() and before[1].since == value[1].since:
            return  # only shares changed, as in the steps of a rollout
        self._drop(path, before)
        for host in value[1].hosts:
            self._hosts.put(host, _Claimed(value[1].claim(path, host)))

    def __delitem__(self, path: str) -> None:
        self._drop(path, self._entries.pop(path))

    def __iter__(self) -> Iterator[str]:
        return iter(self._entries)

    def __len__(self) -> int:
        return len(self._entries)

    def _drop(self, path: str, value: Versioned | None) -> None:
        for host in value[1].hosts if value is not None else ():
            self._hosts.remove(host, path)
