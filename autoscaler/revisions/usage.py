"""Scaling by CPU or memory: measures what instances use, at the interval of Kubernetes' HPA, and decides by it."""

import asyncio
from collections.abc import Awaitable, Callable, Iterable, Mapping, Sequence
from typing import Protocol

from autoscaler.decision import hpa
from autoscaler.runtime.model import InstanceSpec, Usage
from knoll.resources.scaling import ScalingSpec

SYNC_SECONDS = 15.0
"""Interval of measurements: the default of kube-controller-manager's --horizontal-pod-autoscaler-sync-period."""
LEAST_SECONDS = 1.0
"""A rate over a shorter time is not meaningful."""


def cpu_request(spec: InstanceSpec) -> float:
    """Return the cores that an instance's containers request together; 0 when one of them requests none.

    A limit without a request is a request, as on Kubernetes.
    """
    resources = (container.resources for container in spec.containers)
    each = [own.cpu_request or own.cpu_limit or 0.0 for own in resources]
    return sum(each) if all(each) else 0.0


class ResourceScale:
    """The scale of one Revision by its usage. Owned by its scaler."""

    def __init__(self) -> None:
        self._before: dict[str, tuple[float, Usage]] = {}
        """Instance to when it was last measured, and the measurement."""
        self._state = hpa.Recommendations()
        self.decision: hpa.UsageDecision | None = None
        """The newest decision."""

    def decide(
        self,
        spec: ScalingSpec,
        instances: Mapping[str, tuple[bool, float]],
        usage: Mapping[str, Usage],
        current: int,
        now: float,
    ) -> hpa.UsageDecision:
        """Return how many instances there should be.

        Args:
            instances: each that counts towards the scale, with whether it is ready and the cores that it requests.
            usage: of those that could be measured.
            current: instances desired until now.
            now: epoch seconds.
        """
        samples = [
            hpa.InstanceUsage(ready, self._used(spec.metric, name, usage.get(name), now), request)
            for name, (ready, request) in instances.items()
        ]
        self._before = {name: (now, usage[name]) for name in instances if name in usage}
        self.decision, self._state = hpa.decide(spec, samples, current, self._state, now)
        return self.decision

    def _used(self, metric: str, name: str, usage: Usage | None, now: float) -> float | None:
        if usage is None:
            return None
        if metric == "memory":
            return float(usage.memory_bytes)
        at, before = self._before.get(name, (now, usage))
        seconds, used = now - at, usage.cpu_seconds - before.cpu_seconds
        # Less than before: a container was restarted.
        return used / seconds if seconds >= LEAST_SECONDS and used >= 0 else None


class Measured(Protocol):
    """A Revision that may be scaled by its usage."""

    key: str

    def to_measure(self) -> list[str]: ...
    def measured(self, usage: Mapping[str, Usage]) -> None: ...


class UsageMeter:
    """Measures all Revisions that scale by usage, while this process leads."""

    def __init__(
        self,
        measure: Callable[[Sequence[str]], Awaitable[Mapping[str, Usage]]],
        scalers: Callable[[], Iterable[Measured]],
        on_change: Callable[[str], None],
        seconds: float = SYNC_SECONDS,
    ) -> None:
        """
        Args:
            measure: returns the usage of the instances that could be measured, by name.
            scalers: all of them; those that do not scale by usage cost nothing.
            on_change: called with the `namespace/name` of each that was measured.
            seconds: interval.
        """
        self._measure, self._scalers, self._on_change, self._seconds = measure, scalers, on_change, seconds

    async def run(self) -> None:
        """Measure until cancelled."""
        while True:
            await asyncio.sleep(self._seconds)
            for scaler in list(self._scalers()):
                if names := scaler.to_measure():
                    scaler.measured(await self._measure(names))
                    self._on_change(scaler.key)
