"""Which of the things that happened to instances are still to be written as Events of their Pods. Pure."""

from knoll.messages.instances import InstanceEvent, InstanceRow


class PodEvents:
    """What was written of each Pod."""

    def __init__(self) -> None:
        self._written: dict[tuple[str, str], dict[tuple[str, str], int]] = {}
        """Namespace and name of a Pod to how often something was written: by reason and message."""

    def begin(self, namespace: str, name: str) -> None:
        """A Pod was created just now: nothing of it is written yet."""
        self._written[namespace, name] = {}

    def forget(self, namespace: str, name: str) -> None:
        """A Pod is gone."""
        self._written.pop((namespace, name), None)

    def news(self, namespace: str, row: InstanceRow) -> list[InstanceEvent]:
        """What is to be written now; its `count` is how often it happened since the last time.

        Of a Pod that this process did not create, an earlier leader has written what is there at the first look.
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
