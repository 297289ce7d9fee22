"""An armed instance of a Revision, from its arming until it is released or removed.

Theory of operation. The engine creates it (ARMING); then it waits for the next request (WAITING), and the leader takes
it for a start (TAKEN), which releases it. A change of what it would run, or of whether it may exist, makes it STALE: it
is never released, only removed. A start that has taken a stale instance removes it and continues as usual.
"""

from collections.abc import Mapping
from enum import Enum

from autoscaler.probes.spec import Probes
from autoscaler.runtime.model import InstanceSpec


class ArmedState(Enum):
    """Where an armed instance is."""

    ARMING = "being armed"
    WAITING = "armed"
    TAKEN = "about to be released"
    STALE = "to be removed"
    GONE = "released or removed"


class ArmedEvent(Enum):
    """An event in its life."""

    ARMED = "its containers wait for the release"
    TAKE = "a start takes it"
    INVALIDATE = "it would not run what a new instance would run, it must not exist, or it has ended"
    END = "it was released, or nothing of it is left"


S, E = ArmedState, ArmedEvent

TRANSITIONS: Mapping[tuple[ArmedState, ArmedEvent], ArmedState] = {
    (S.ARMING, E.ARMED): S.WAITING,
    (S.WAITING, E.TAKE): S.TAKEN,
    **{(state, E.INVALIDATE): S.STALE for state in (S.ARMING, S.WAITING, S.TAKEN)},
    **{(state, E.END): S.GONE for state in ArmedState},
}
"""Other events change nothing: they arrive late."""


class ArmedInstance:
    """One armed instance."""

    def __init__(self, spec: InstanceSpec, probes: Mapping[str, Probes]) -> None:
        """
        Args:
            spec: the final spec, with which it is armed.
            probes: of its containers, by name.
        """
        self.spec, self.probes = spec, probes
        self.state = ArmedState.ARMING
        self.address = ""
        """IP address; empty while it is being armed."""

    def apply(self, event: ArmedEvent) -> ArmedState:
        """Move to the next state, and return it."""
        self.state = TRANSITIONS.get((self.state, event), self.state)
        return self.state
