"""Which claim owns a host, if several Routes, tags and DomainMappings claim the same one. Pure.

A claim owns its host until it is removed; then the next one in this order owns it:

1. Routes before DomainMappings: a DomainMapping never takes over the host of a Service.
2. The earlier claim. A Route claims the host of its name, or of a tag, when it first has it; so a new Service does not
   take over the host of an existing tag, nor a new tag that of an existing Service.
3. The smaller `namespace/name`, so that the order is total.

The order depends on the claims only, not on the sequence in which they were added.
"""

from collections.abc import Iterator, Mapping
from typing import Generic, NamedTuple, Protocol, TypeVar


class Claim(NamedTuple):
    """A claim of one host. The smallest claim owns it."""

    mapping: bool
    """Whether a DomainMapping claims it."""
    since: float
    """Epoch seconds of the claim; 0 if it does not matter."""
    path: str
    """The field of the routing table, `namespace/name`."""


class Claiming(Protocol):
    """A value that has a claim."""

    @property
    def claim(self) -> Claim: ...


V = TypeVar("V", bound=Claiming)


class Owners(Generic[V]):
    """The owner of each host, and the other claims, which succeed the owner when it is removed."""

    __slots__ = ("_behind", "_owner")

    def __init__(self) -> None:
        self._owner: dict[str, V] = {}
        self._behind: dict[str, dict[str, V]] = {}
        """Host to path to claim: the claims that do not own their host, for hosts with several claims."""

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
