"""The scale of Revisions in Prometheus' text format, collected on request."""

from collections.abc import Callable, Iterator, Mapping

from prometheus_client import CollectorRegistry
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric
from prometheus_client.exposition import generate_latest

from autoscaler.instances.transitions import label_of
from autoscaler.revisions.revision_scaler import RevisionScaler

_STAGES = ("starting", "ready", "unready", "draining", "resting", "paused", "stopped")


class _AutoscalerCollector:
    def __init__(self, scalers: Mapping[str, RevisionScaler]) -> None:
        self._scalers = scalers

    def collect(self) -> Iterator[Metric]:
        """See prometheus_client."""
        label = ["revision"]
        desired = GaugeMetricFamily("knoll_desired_instances", "Desired instances.", labels=label)
        actual = GaugeMetricFamily("knoll_instances", "Instances, by stage.", labels=["revision", "stage"])
        panic = GaugeMetricFamily("knoll_panic", "1 while a Revision is scaled in panic mode.", labels=label)
        stable = GaugeMetricFamily("knoll_stable_load", "Mean load over the stable window.", labels=label)
        sudden = GaugeMetricFamily("knoll_panic_load", "Mean load over the panic window.", labels=label)
        burst = GaugeMetricFamily("knoll_excess_burst_capacity", "Capacity left for a burst.", labels=label)
        starts = CounterMetricFamily("knoll_instance_starts", "Instances requested.", labels=label)
        armed = GaugeMetricFamily("knoll_armed_instances", "Armed instances: no instances yet.", labels=label)
        releases = CounterMetricFamily("knoll_armed_starts", "Instances requested that were armed.", labels=label)
        kept = GaugeMetricFamily("knoll_paused_memory_bytes", "Memory kept by paused instances.", labels=label)
        for scaler in self._scalers.values():
            kept.add_metric([scaler.key], sum(instance.memory_bytes for instance in scaler.idle_instances()))
            stages = [label_of(instance.state) for instance in scaler.instances.values()]
            desired.add_metric([scaler.key], 0 if scaler.deleted else scaler.desired)
            starts.add_metric([scaler.key], scaler.starts)
            armed.add_metric([scaler.key], scaler.armed_count)
            releases.add_metric([scaler.key], scaler.releases)
            for stage in _STAGES:
                actual.add_metric([scaler.key, stage], stages.count(stage))
            if scaler.decision:
                panic.add_metric([scaler.key], scaler.decision.panicking)
                stable.add_metric([scaler.key], scaler.decision.metrics.stable)
                sudden.add_metric([scaler.key], scaler.decision.metrics.panic)
                burst.add_metric([scaler.key], scaler.decision.excess_burst_capacity)
        yield from (desired, actual, panic, stable, sudden, burst, starts, armed, releases, kept)


def exposition(scalers: Callable[[], Mapping[str, RevisionScaler]]) -> Callable[[], bytes]:
    """Return a function that returns the text of /metrics: of the process, and of each Revision that it scales."""

    def text() -> bytes:
        registry = CollectorRegistry(auto_describe=False)
        registry.register(_AutoscalerCollector(scalers()))
        return generate_latest() + generate_latest(registry)

    return text
