"""What happened to one instance, as the Events of its Pod, bounded as kubelet's are. Pure.

Source: client-go, tools/record/events_cache.go (a burst of 25 Events of one object, then one in five minutes); the
reasons and messages are kubelet's (pkg/kubelet/events, pkg/kubelet/prober, pkg/kubelet/kuberuntime).
"""

from collections.abc import Callable
from typing import Literal

from knoll.messages.instances import InstanceEvent

BURST = 25
REFILL_SECONDS = 300.0
MAX_KEPT = 10
"""Events with different messages that are kept; the oldest are dropped first."""


class InstanceEvents:
    """The Events of one instance. Repeated ones are counted."""

    def __init__(self, clock: Callable[[], float]) -> None:
        """Args: clock: returns epoch seconds."""
        self._clock = clock
        self._tokens, self._refilled = float(BURST), clock()
        self.kept: tuple[InstanceEvent, ...] = ()
        """Ordered by when they happened last."""

    def unhealthy(self, message: str) -> bool:
        """Add the failure of a probe.

        Args:
            message: `Readiness probe failed: …`.

        Returns:
            False when it was dropped because of too many Events.
        """
        return self._add("Warning", "Unhealthy", message)

    def killing(self, container: str, kind: str) -> None:
        """Args: kind: `liveness` or `startup`, the probe that failed."""
        self._add("Normal", "Killing", f"Container {container} failed {kind} probe, will be restarted")

    def back_off(self, container: str, pod: str) -> None:
        """Args: pod: `name_namespace(uid)`, as far as known."""
        self._add("Warning", "BackOff", f"Back-off restarting failed container {container} in pod {pod}")

    def released(self) -> None:
        """It was armed, and its programs run now."""
        self._add("Normal", "Started", "Started armed instance: its containers were created before the request")

    def evicted(self, message: str) -> None:
        """Args: message: the resource that it used too much of."""
        self._add("Warning", "Evicted", message)

    def failed(self, message: str) -> None:
        """Args: message: why a container could not be started."""
        self._add("Warning", "Failed", f"Error: {message}")

    def _add(self, type_: Literal["Normal", "Warning"], reason: str, message: str) -> bool:
        now = self._clock()
        self._tokens = min(BURST, self._tokens + max(0.0, now - self._refilled) / REFILL_SECONDS)
        self._refilled = now
        if self._tokens < 1:
            return False
        self._tokens -= 1
        before = next((event for event in self.kept if (event.reason, event.message) == (reason, message)), None)
        others = tuple(event for event in self.kept if event is not before)
        event = InstanceEvent(type_, reason, message, 1 if before is None else before.count + 1)
        self.kept = (*others, event)[-MAX_KEPT:]
        return True
