"""What operators see of Revisions' scale, in Prometheus' text format. Made when asked for."""

from collections.abc import Callable, Iterator, Mapping

from prometheus_client import CollectorRegistry
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric
from prometheus_client.exposition import generate_latest

from autoscaler.instances.instance import Stage
from autoscaler.revisions.revision_scaler import Scaler

_STAGES: tuple[Stage, ...] = ("starting", "ready", "unready", "draining", "resting", "paused", "stopped")


class _Collector:
    def __init__(self, scalers: Mapping[str, Scaler]) -> None:
        self._scalers = scalers

    def collect(self) -> Iterator[Metric]:
        """See prometheus_client."""
        label = ["revision"]
        desired = GaugeMetricFamily("knoll_desired_instances", "Instances that are wanted.", labels=label)
        actual = GaugeMetricFamily("knoll_instances", "Instances, by stage.", labels=["revision", "stage"])
        panic = GaugeMetricFamily("knoll_panic", "1 while a Revision is scaled in panic.", labels=label)
        stable = GaugeMetricFamily("knoll_stable_load", "Mean load over the stable window.", labels=label)
        sudden = GaugeMetricFamily("knoll_panic_load", "Mean load over the panic window.", labels=label)
        burst = GaugeMetricFamily("knoll_excess_burst_capacity", "Room left for a burst.", labels=label)
        starts = CounterMetricFamily("knoll_instance_starts", "Instances that were asked for.", labels=label)
        kept = GaugeMetricFamily("knoll_paused_memory_bytes", "Memory that paused instances keep.", labels=label)
        for scaler in self._scalers.values():
            kept.add_metric([scaler.key], sum(one.memory_bytes for one in scaler.resting()))
            stages = [member.stage for member in scaler.members.values()]
            desired.add_metric([scaler.key], scaler.status().desired)
            starts.add_metric([scaler.key], scaler.starts)
            for stage in _STAGES:
                actual.add_metric([scaler.key, stage], stages.count(stage))
            if scaler.decision:
                panic.add_metric([scaler.key], scaler.decision.panicking)
                stable.add_metric([scaler.key], scaler.decision.seen.stable)
                sudden.add_metric([scaler.key], scaler.decision.seen.panic)
                burst.add_metric([scaler.key], scaler.decision.excess_burst_capacity)
        yield from (desired, actual, panic, stable, sudden, burst, starts, kept)


def exposition(scalers: Callable[[], Mapping[str, Scaler]]) -> Callable[[], bytes]:
    """Makes the text of /metrics: those of the process, and of each Revision that is looked after here."""

    def text() -> bytes:
        registry = CollectorRegistry(auto_describe=False)
        registry.register(_Collector(scalers()))
        return generate_latest() + generate_latest(registry)

    return text
