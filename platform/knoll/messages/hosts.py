"""Who owns a host: the one rule by which Routes, tags and DomainMappings that claim the same host are ordered. Pure.

A claim holds its host until it is removed; then the next one in this order holds it:

1. Routes before DomainMappings: a mapping never takes the address of a Service.
2. The earlier claim. A Route claims the host of its name, or of a tag, when it first has it; so a new Service does not
   take over the host of an existing tag, nor a new tag that of an existing Service.
3. The smaller `namespace/name`, so that the order is total.

The order depends on the claims alone, not on the sequence in which they were added.
"""

from collections.abc import Iterator, Mapping
from typing import Generic, NamedTuple, Protocol, TypeVar


class Claim(NamedTuple):
    """A claim of one host. The smallest claim owns it."""

    mapping: bool
    """Whether a DomainMapping claims it."""
    since: float
    """Epoch seconds of the claim; 0 when it does not matter."""
    path: str
    """The field of the routing table, `namespace/name`."""


class Claiming(Protocol):
    """A value that stands for a claim."""

    @property
    def claim(self) -> Claim: ...


V = TypeVar("V", bound=Claiming)


class Owners(Generic[V]):
    """The owner of each host, and the claims behind it, which own it when the owner goes."""

    __slots__ = ("_behind", "_owner")

    def __init__(self) -> None:
        self._owner: dict[str, V] = {}
        self._behind: dict[str, dict[str, V]] = {}
        """Host to path to claim, of hosts with several claims: those that do not own it."""

    @property
    def owned(self) -> Mapping[str, V]:
        """Host to the claim that owns it."""
        return self._owner

    def put(self, host: str, value: V) -> None:
        """Add a claim, or replace the one of the same path."""
        self.remove(host, value.claim.path)
        owner = self._owner.get(host)
        if owner is None:
            self._owner[host] = value
            return
        first, second = (value, owner) if value.claim < owner.claim else (owner, value)
        self._owner[host] = first
        self._behind.setdefault(host, {})[second.claim.path] = second

    def remove(self, host: str, path: str) -> None:
        """Remove the claim of a path, if there is one."""
        owner, behind = self._owner.get(host), self._behind.get(host, {})
        if owner is not None and owner.claim.path == path:
            if behind:
                following = min(behind.values(), key=lambda value: value.claim)
                self._owner[host] = following
                del behind[following.claim.path]
            else:
                del self._owner[host]
        else:
            behind.pop(path, None)
        if not behind:
            self._behind.pop(host, None)

    def claims(self, host: str) -> Iterator[V]:
        """All claims of a host, the owner's first."""
        if host in self._owner:
            yield self._owner[host]
            yield from self._behind.get(host, {}).values()
