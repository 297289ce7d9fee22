"""What a manager's keeper does with its Redis server and its sentinel. Pure.

With the third manager, another server may become the primary, in two steps, so that no acknowledged write is lost: the
primary first refuses writes that no replica has (from then on all clients wait for one), and only then may sentinels
replace it: their quorum is unreachable until then. What to do follows from the present state; steps may be repeated.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from enum import Enum

from knoll.cluster.managers import GROUP, Manager

UNREACHABLE = 99
"""Quorum with which sentinels never replace the primary."""


@dataclass(frozen=True, slots=True)
class ServerState:
    """A Redis server, from its reply to `INFO replication`."""

    is_primary: bool
    replicas: int
    """Number of replicas that follow it without a lag."""
    has_minimum: bool
    """Whether it refuses writes that no replica has."""


@dataclass(frozen=True, slots=True)
class SentinelState:
    """What a sentinel knows about the group."""

    primary_port: int
    is_healthy: bool
    """Whether it sees the primary, and no fail-over is going on."""
    quorum: int
    ports: frozenset[int]
    """Announced ports of the other sentinels and of the replicas."""


class Step(Enum):
    """Something that the keeper does."""

    REQUIRE_REPLICA = "require_replica"
    """Let the own server refuse writes that no replica has, and end its clients, which begin to wait for replicas."""
    SET_QUORUM = "set_quorum"
    FORGET = "forget"
    """Let the own sentinel forget servers and sentinels that are no longer managers."""


def quorum(managers: int, primary: ServerState | None) -> int:
    """Return how many sentinels have to consider the primary to be down before it is replaced.

    Args: primary: None if it did not reply: then nothing is known.
    """
    if primary is None or not primary.has_minimum:
        return UNREACHABLE
    return managers // 2 + 1


def steps(
    managers: Sequence[Manager], own: ServerState, primary: ServerState | None, sentinel: SentinelState
) -> list[Step]:
    """Return what to do.

    Args:
        own: the server of this manager.
        primary: the server that the sentinel names; None if it did not reply.
    """
    chosen = []
    if not own.has_minimum and _may_require(managers, own):
        chosen.append(Step.REQUIRE_REPLICA)
    if primary is not None and sentinel.quorum != quorum(len(managers), primary):
        chosen.append(Step.SET_QUORUM)
    ports = {port for manager in managers for port in (manager.redis_port, manager.sentinel_port)}
    if sentinel.is_healthy and sentinel.primary_port in ports and sentinel.ports - ports:
        chosen.append(Step.FORGET)
    return chosen


def _may_require(managers: Sequence[Manager], own: ServerState) -> bool:
    """Return whether a server may refuse writes without a replica; a replica gets none, so it always may."""
    return not own.is_primary or (len(managers) >= GROUP and own.replicas >= GROUP - 1)
