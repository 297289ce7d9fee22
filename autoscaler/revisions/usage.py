"""Scaling by CPU or memory: what instances use, measured as often as Kubernetes' HPA looks, and what follows of it."""

import asyncio
from collections.abc import Callable, Iterable, Mapping
from typing import Protocol

import structlog

from autoscaler.decision import hpa
from autoscaler.runtime.protocol import InstanceSpec, Runtime, Usage
from knoll.resources.scaling import ScalingSpec
from knoll.values.errors import KnollError

log = structlog.get_logger()

SYNC_SECONDS = 15.0
"""Between two looks: the default of kube-controller-manager's --horizontal-pod-autoscaler-sync-period."""
LEAST_SECONDS = 1.0
"""A rate over less than that says nothing."""


def cpu_request(spec: InstanceSpec) -> float:
    """Cores that an instance's containers request together; 0 when one of them requests none.

    A limit counts where there is no request, as Kubernetes' defaults have it.
    """
    each = [one.resources.cpu_request or one.resources.cpu_limit or 0.0 for one in spec.containers]
    return sum(each) if all(each) else 0.0


class ResourceScale:
    """The scale of one Revision by its usage. Owned by its scaler; pure but for what it remembers."""

    def __init__(self) -> None:
        self._before: dict[str, tuple[float, Usage]] = {}
        """Instance to when it was measured last, and what that gave."""
        self._memory = hpa.Memory()
        self.decision: hpa.Decision | None = None
        """The newest."""

    def decide(
        self,
        spec: ScalingSpec,
        instances: Mapping[str, tuple[bool, float]],
        usage: Mapping[str, Usage],
        current: int,
        now: float,
    ) -> hpa.Decision:
        """Take what was measured, and say how many instances there should be.

        Args:
            instances: each that is not on its way out, with whether it is ready and the cores that it requests.
            usage: of those that could be measured.
            current: instances that were wanted until now.
            now: epoch seconds.
        """
        samples = [
            hpa.Sample(ready, self._used(spec.metric, name, usage.get(name), now), request)
            for name, (ready, request) in instances.items()
        ]
        self._before = {name: (now, usage[name]) for name in instances if name in usage}
        self.decision, self._memory = hpa.decide(spec, samples, current, self._memory, now)
        return self.decision

    def _used(self, metric: str, name: str, usage: Usage | None, now: float) -> float | None:
        if usage is None:
            return None
        if metric == "memory":
            return float(usage.memory_bytes)
        at, before = self._before.get(name, (now, usage))
        seconds, used = now - at, usage.cpu_seconds - before.cpu_seconds
        # Less than before: a container was started again.
        return used / seconds if seconds >= LEAST_SECONDS and used >= 0 else None


class Measured(Protocol):
    """A Revision that may be scaled by its usage."""

    key: str

    def to_measure(self) -> list[str]: ...
    def measured(self, usage: Mapping[str, Usage]) -> None: ...


class Measuring:
    """Measures all Revisions that ask for it, while this process leads."""

    def __init__(
        self,
        runtime: Runtime,
        scalers: Callable[[], Iterable[Measured]],
        changed: Callable[[str], None],
        seconds: float = SYNC_SECONDS,
    ) -> None:
        """
        Args:
            scalers: all of them; those that want nothing measured cost nothing.
            changed: called with the `namespace/name` of each that was measured.
            seconds: between two looks.
        """
        self._runtime, self._scalers, self._changed, self._seconds = runtime, scalers, changed, seconds

    async def run(self) -> None:
        """Measure until cancelled."""
        while True:
            await asyncio.sleep(self._seconds)
            for scaler in list(self._scalers()):
                if names := scaler.to_measure():
                    each = await asyncio.gather(*(self._usage(name) for name in names))
                    scaler.measured({name: one for name, one in zip(names, each, strict=True) if one is not None})
                    self._changed(scaler.key)

    async def _usage(self, name: str) -> Usage | None:
        try:
            return await self._runtime.usage(name)
        except KnollError as error:
            log.warning("instance not measured", instance=name, error=str(error))
            return None
