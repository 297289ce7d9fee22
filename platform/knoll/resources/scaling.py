"""The scaling parameters of a Revision: its annotations, with defaults from config-autoscaler. Pure.

Source: knative.dev/serving, pkg/reconciler/autoscaling (MakeDecider, ResolveMetricTarget).
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal, TypeVar

from knoll.config.autoscaler import HPA, TARGET_MIN
from knoll.config.platform import PlatformConfig
from knoll.resources.annotations.rollback import RollbackPolicy, parse_policy
from knoll.resources.annotations.warm_schedule import WarmWindow, parse_windows
from knoll.resources.models.revision import Revision
from knoll.resources.validation.annotation_rules import CPU, MEMORY, RPS
from knoll.values import labels as well_known
from knoll.values.duration import parse_duration
from knoll.values.numbers import parse_number

T = TypeVar("T")

Metric = Literal["concurrency", "rps", "cpu", "memory"]
"""The last two are for the class `hpa` only."""
CPU_PERCENT = 80.0
"""Kubernetes' default target of a HorizontalPodAutoscaler without metrics."""
EXPONENTIAL = frozenset({"weightedExponential", "weighted-exponential"})


@dataclass(frozen=True, slots=True)
class ScalingSpec:
    """The scaling parameters of one Revision."""

    class_: str
    """The autoscaler class; by default `kpa.autoscaling.knative.dev`."""
    metric: Metric
    total: float
    """Capacity of an instance: concurrent requests or requests per second; percent of the requested CPU; bytes."""
    utilization: float
    """Desired fraction of `total`, above 0 and at most 1."""
    target: float
    """`total * utilization`, at least 0.01."""
    target_burst_capacity: float
    """Desired spare capacity in requests; with -1, the activator always stays in the path."""
    window_seconds: float
    """The stable window."""
    panic_window_fraction: float
    """As a fraction of the stable window."""
    panic_threshold_fraction: float
    """Load that starts panic mode, relative to the capacity of the ready instances; 2.0 is twice as much."""
    min_scale: int
    max_scale: int
    """0 is no limit."""
    initial_scale: int
    """Number of instances with which a new Revision starts; between `min_scale` and `max_scale`."""
    activation_scale: int
    """Minimum number of instances above zero; by default 1."""
    scale_down_delay_seconds: float
    retention_seconds: float
    """Seconds for which the last instance is kept after the decision to remove it."""
    max_scale_up_rate: float
    max_scale_down_rate: float
    grace_seconds: float
    """Maximum seconds for which the last instance is kept while the activator takes over."""
    progress_deadline_seconds: float
    """Seconds within which the Revision must become ready."""
    exponential: bool
    """Whether newer load has more weight in the stable window (`weightedExponential`) or not (`linear`)."""
    scale_to_zero: bool
    """Whether it can be scaled to zero."""
    reachable: bool
    """Whether any Route sends requests to it. Otherwise `min_scale` does not apply."""
    activator_capacity: float
    """Concurrent requests that one activator can handle."""
    paused_seconds: float = 0.0
    """Seconds for which an idle instance stays paused; 0 disables it."""
    stopped_seconds: float = 0.0
    """Seconds for which it then stays stopped; 0 disables it."""
    warm: tuple[WarmWindow, ...] = ()
    """Times at which instances are kept independent of load."""
    rollout_scale: int = 0
    """Number of instances that it needs before its next share of traffic; 0 if it is not being rolled out."""
    rollout_from: str = ""
    """Name of its predecessor, with which it is compared for a rollback; empty for none."""
    rollback: RollbackPolicy | None = None
    """Criteria for a rollback to the predecessor."""
    down_stabilization_seconds: float = 300.0
    up_stabilization_seconds: float = 0.0
    """For the class `hpa`: seconds for which a different number of instances must have been recommended."""

    @property
    def by_resources(self) -> bool:
        """Whether it is scaled by CPU or memory instead of requests."""
        return self.metric in ("cpu", "memory")

    @property
    def panic_window_seconds(self) -> float:
        return self.window_seconds * self.panic_window_fraction


def scaling_spec(revision: Revision, config: PlatformConfig) -> ScalingSpec:
    """The parameters from the annotations of a Revision, with defaults from config-autoscaler.

    Invalid annotations, which validation does not admit, are ignored.
    """
    scaler = config.autoscaler
    read = _Annotations(revision.metadata.annotations)
    class_ = read.text(well_known.CLASS, scaler.pod_autoscaler_class)
    metric = _metric(read, class_)
    utilization = read.number(well_known.TARGET_UTILIZATION, scaler.container_concurrency_target_fraction * 100) / 100
    if metric in (CPU, MEMORY):
        utilization = 1.0
    total = _total(read, revision, metric, config)
    most = read.whole(well_known.MAX_SCALE, scaler.max_scale)
    least = read.whole(well_known.MIN_SCALE, scaler.min_scale)
    if most:
        least = min(least, most)
    initial = read.whole(well_known.INITIAL_SCALE, scaler.initial_scale)
    if initial == 0 and not scaler.allow_zero_initial_scale:
        initial = scaler.initial_scale
    initial = max(initial, least)
    algorithm = read.text(well_known.AGGREGATION_ALGORITHM, "linear")
    deadline = config.deployment.progress_deadline_seconds
    return ScalingSpec(
        class_=class_,
        metric=metric,
        total=total,
        utilization=utilization,
        target=max(TARGET_MIN, total * utilization),
        target_burst_capacity=read.number(well_known.TARGET_BURST_CAPACITY, scaler.target_burst_capacity),
        window_seconds=read.seconds(well_known.WINDOW, scaler.stable_window_seconds),
        panic_window_fraction=read.number(well_known.PANIC_WINDOW, scaler.panic_window_fraction * 100) / 100,
        panic_threshold_fraction=read.number(well_known.PANIC_THRESHOLD, scaler.panic_threshold_fraction * 100) / 100,
        min_scale=least,
        max_scale=most,
        initial_scale=min(initial, most) if most else initial,
        activation_scale=max(1, read.whole(well_known.ACTIVATION_SCALE, 1)),
        scale_down_delay_seconds=read.seconds(well_known.SCALE_DOWN_DELAY, scaler.scale_down_delay_seconds),
        retention_seconds=read.seconds(well_known.POD_RETENTION, scaler.scale_to_zero_retention_seconds),
        max_scale_up_rate=scaler.max_scale_up_rate,
        max_scale_down_rate=scaler.max_scale_down_rate,
        grace_seconds=scaler.scale_to_zero_grace_seconds,
        progress_deadline_seconds=read.seconds(well_known.PROGRESS_DEADLINE, deadline),
        exponential=algorithm in EXPONENTIAL,
        scale_to_zero=scaler.enable_scale_to_zero,
        reachable=revision.metadata.labels.get(well_known.ROUTING_STATE) != well_known.RESERVE,
        activator_capacity=scaler.activator_capacity,
        paused_seconds=read.seconds(well_known.PAUSED_RETENTION, scaler.paused_retention_seconds),
        stopped_seconds=read.seconds(well_known.STOPPED_RETENTION, scaler.stopped_retention_seconds),
        warm=read.windows(well_known.WARM_SCHEDULE),
        rollout_scale=read.whole(well_known.ROLLOUT_SCALE, 0),
        rollout_from=read.text(well_known.ROLLOUT_FROM, ""),
        rollback=read.policy(well_known.ROLLBACK_ON),
        down_stabilization_seconds=read.seconds(well_known.WINDOW, 300.0),
        up_stabilization_seconds=read.seconds(well_known.WINDOW, 0.0),
    )


def _metric(read: "_Annotations", class_: str) -> Metric:
    named = read.text(well_known.METRIC, "")
    if class_ == HPA:
        # As in Kubernetes: without a target the metric is CPU, whatever the annotation says.
        return "memory" if named == MEMORY and read.text(well_known.TARGET, "") else "cpu"
    return "rps" if named == RPS else "concurrency"


def _total(read: "_Annotations", revision: Revision, metric: str, config: PlatformConfig) -> float:
    scaler, limit = config.autoscaler, revision.spec.container_concurrency or 0
    if metric == CPU:
        return read.number(well_known.TARGET, CPU_PERCENT) if read.text(well_known.METRIC, CPU) == CPU else CPU_PERCENT
    if metric == MEMORY:
        return read.number(well_known.TARGET, 0.0) * 1024**2
    if metric == RPS:
        return read.number(well_known.TARGET, scaler.requests_per_second_target_default)
    target = read.number(well_known.TARGET, limit or scaler.container_concurrency_target_default)
    # A target above the hard limit would never start another instance.
    return min(target, limit) if limit else target


class _Annotations:
    """Annotations in every spelling, parsed as numbers or durations."""

    def __init__(self, annotations: dict[str, str]) -> None:
        self._annotations = annotations

    def text(self, key: str, default: str) -> str:
        return well_known.find_annotation(self._annotations, key)[1] or default

    def number(self, key: str, default: float) -> float:
        return self._read(key, default, parse_number)

    def whole(self, key: str, default: int) -> int:
        return self._read(key, default, int)

    def seconds(self, key: str, default: float) -> float:
        return self._read(key, default, lambda text: float(parse_duration(text)))

    def windows(self, key: str) -> tuple[WarmWindow, ...]:
        return self._read(key, (), parse_windows)

    def policy(self, key: str) -> RollbackPolicy | None:
        return self._read(key, None, parse_policy)

    def _read(self, key: str, default: T, parse: Callable[[str], T]) -> T:
        value = well_known.find_annotation(self._annotations, key)[1]
        if value is None:
            return default
        try:
            return parse(value)
        except ValueError:
            return default
