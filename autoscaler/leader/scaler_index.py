"""Which Revisions a tick examines, and which may have an armed instance, without a walk over all Revisions.

Nearly all of thousands of Revisions are settled at zero (`RevisionScaler.is_settled`): only an input can change them.
"""

from bisect import bisect_left, insort
from collections.abc import Iterator

from autoscaler.decision.armed_pool import ArmingCandidate
from autoscaler.revisions.revision_scaler import RevisionScaler


class ScalerIndex:
    """Indexes of all scalers. The leader calls `note` or `unsettle` for each scaler that has acted or got an input."""

    def __init__(self) -> None:
        self._unsettled: dict[str, RevisionScaler] = {}
        """By uid."""
        self._may_wake: set[str] = set()
        self._order: list[tuple[float, str]] = []
        """Negative time of last use, and uid, of each Revision that may be armed; sorted."""
        self._entries: dict[str, tuple[float, str]] = {}
        """uid to its entry in `_order`."""

    @property
    def without_instance(self) -> int:
        """How many Revisions have no instance and get one with the next request."""
        return len(self._may_wake)

    def note(self, scaler: RevisionScaler) -> bool:
        """Update the entries of a scaler that is new or has changed; returns whether the arming candidates changed."""
        self.unsettle(scaler)
        if scaler.may_wake():
            self._may_wake.add(scaler.uid)
        else:
            self._may_wake.discard(scaler.uid)
        entry = (-scaler.last_used, scaler.uid) if scaler.may_be_armed() else None
        if entry == self._entries.get(scaler.uid):
            return False
        self._remove_entry(scaler.uid)
        if entry is not None:
            self._entries[scaler.uid] = entry
            insort(self._order, entry)
        return True

    def unsettle(self, scaler: RevisionScaler) -> None:
        """Examine a scaler at the next tick: it got an input that it has not acted on."""
        self._unsettled[scaler.uid] = scaler

    def remove(self, scaler: RevisionScaler) -> None:
        """Remove a scaler whose Revision and instances are gone."""
        self._unsettled.pop(scaler.uid, None)
        self._may_wake.discard(scaler.uid)
        self._remove_entry(scaler.uid)

    def unsettled(self) -> list[RevisionScaler]:
        """Return the scalers that may change with time; those that have settled are left out from now on."""
        for uid in [uid for uid, scaler in self._unsettled.items() if scaler.is_settled()]:
            del self._unsettled[uid]
        return list(self._unsettled.values())

    def candidates(self) -> Iterator[ArmingCandidate]:
        """Return the Revisions that may be armed, those used last first."""
        return (ArmingCandidate(uid, -negative) for negative, uid in self._order)

    def _remove_entry(self, uid: str) -> None:
        entry = self._entries.pop(uid, None)
        if entry is not None:
            del self._order[bisect_left(self._order, entry)]
