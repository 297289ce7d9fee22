"""The scalers of all Revisions, by uid and by name, and their instances."""

from collections import defaultdict

from autoscaler.leader.scaler_index import ScalerIndex
from autoscaler.revisions.placed_instance import PlacedInstance
from autoscaler.revisions.revision_scaler import RevisionScaler


class RevisionRegistry:
    """All Revisions that this process scales.

    A Revision that was deleted and created again under its name has two scalers until the instances of the first are
    gone.
    """

    def __init__(self) -> None:
        self.by_uid: dict[str, RevisionScaler] = {}
        self.current: dict[str, RevisionScaler] = {}
        """By `namespace/name`."""
        self.index = ScalerIndex()
        self._by_key: defaultdict[str, list[RevisionScaler]] = defaultdict(list)

    def add(self, scaler: RevisionScaler) -> None:
        """Add a scaler; an earlier Revision of its name is deleted."""
        earlier = self.current.get(scaler.key)
        if earlier:
            earlier.deleted = True
        self.by_uid[scaler.uid] = self.current[scaler.key] = scaler
        self._by_key[scaler.key].append(scaler)
        self.index.note(scaler)

    def remove(self, scaler: RevisionScaler) -> None:
        """Remove a scaler whose Revision and instances are gone."""
        del self.by_uid[scaler.uid]
        self.index.remove(scaler)
        self._by_key[scaler.key].remove(scaler)
        if not self._by_key[scaler.key]:
            del self._by_key[scaler.key]
        if self.current.get(scaler.key) is scaler:
            del self.current[scaler.key]

    def under(self, key: str) -> list[RevisionScaler]:
        """Return the scalers of a name, `namespace/name`, the current one last."""
        return self._by_key.get(key, [])

    def instances(self) -> list[PlacedInstance]:
        """Return the instances of all Revisions."""
        return [instance for scaler in self.by_uid.values() for instance in scaler.instances.values()]

    def instance(self, name: str) -> PlacedInstance | None:
        """Return an instance by its name."""
        return next((scaler.instances[name] for scaler in self.by_uid.values() if name in scaler.instances), None)
