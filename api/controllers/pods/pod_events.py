"""Finds the events of instances that have not been written as Events of their Pods yet. Pure."""

from knoll.messages.instances import InstanceEvent, InstanceRow


class PodEvents:
    """The events of each Pod that were written."""

    def __init__(self) -> None:
        self._written: dict[tuple[str, str], dict[tuple[str, str], int]] = {}
        """Namespace and name of a Pod to the count of each event, by reason and message."""

    def begin(self, namespace: str, name: str) -> None:
        """Called when a Pod was created: none of its events is written yet."""
        self._written[namespace, name] = {}

    def forget(self, namespace: str, name: str) -> None:
        """Called when a Pod was deleted."""
        self._written.pop((namespace, name), None)

    def new_events(self, namespace: str, row: InstanceRow) -> list[InstanceEvent]:
        """Return the events to write now; `count` is how often each happened since the last call.

        For a Pod that this process did not create, the events of the first call were written by an earlier leader.
        """
        counts = {(event.reason, event.message): event.count for event in row.events}
        before = self._written.get((namespace, row.name), counts)
        self._written[namespace, row.name] = counts
        result = []
        for event in row.events:
            more = event.count - before.get((event.reason, event.message), 0)
            if more > 0:
                result.append(InstanceEvent(event.type, event.reason, event.message, more))
        return result
