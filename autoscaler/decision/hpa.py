"""How many instances a Revision of the class `hpa.autoscaling.knative.dev` should run: by CPU or memory. Pure.

Source: Kubernetes, pkg/controller/podautoscaler/replica_calculator.go (GetResourceReplicas, GetRawResourceReplicas) and
horizontal.go (stabilization, default policies of autoscaling/v2); Knative, pkg/reconciler/autoscaling/hpa/resources.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass

from knoll.resources.scaling import ScalingSpec

TOLERANCE = 0.1
"""A ratio of usage to target this close to 1 changes nothing."""
FACTOR_UP, STEP_UP = 2, 4
"""One decision at most doubles the instances, or adds four where that is more."""
_EPSILON = 1e-9


@dataclass(frozen=True, slots=True)
class InstanceUsage:
    """What one instance uses."""

    ready: bool
    usage: float | None
    """Cores or bytes; None when it was not measured."""
    request: float = 0.0
    """Cores that its containers request; 0 when one of them requests none. Not used for memory."""


@dataclass(frozen=True, slots=True)
class Recommendations:
    """What a decision needs from earlier decisions."""

    recent: tuple[tuple[float, int], ...] = ()
    """(time, instances), within the longer of the stabilization windows."""


@dataclass(frozen=True, slots=True)
class UsageDecision:
    """How many instances, and why."""

    desired: int
    average: float | None
    """Percent of the requested CPU, or bytes in one instance; None when it is unknown."""
    problem: str = ""
    """Why the usage is unknown; the number of instances then stays."""


def decide(
    spec: ScalingSpec, samples: Sequence[InstanceUsage], current: int, state: Recommendations, now: float
) -> tuple[UsageDecision, Recommendations]:
    """Return how many instances a Revision should run.

    Args:
        spec: its metric is `cpu` (target: percent of the request) or `memory` (target: bytes).
        samples: of each instance that counts towards the scale.
        current: instances desired until now, >= 0.
        state: what this function returned last time.
        now: seconds, on any monotonic clock.

    Returns:
        The decision, for at least one instance, and the state to pass in next time.
    """
    least = max(1, spec.min_scale)
    most = max(least, spec.max_scale) if spec.max_scale else max(least, current + STEP_UP, current * FACTOR_UP)
    average, problem = _average(spec, samples)
    if average is None:
        return UsageDecision(min(max(current, least), most), None, problem), state
    recommended = _recommended(spec, samples, current, average / spec.target)
    window = max(spec.down_stabilization_seconds, spec.up_stabilization_seconds)
    recent = (*((at, count) for at, count in state.recent if now - at <= window), (now, recommended))
    stable = _stabilized(spec, recent, current, now)
    rated = min(stable, max(current * FACTOR_UP, current + STEP_UP))
    return UsageDecision(min(max(rated, least), most), average), Recommendations(recent)


def explain(spec: ScalingSpec, decision: UsageDecision) -> str:
    """Return the decision in a sentence."""
    if decision.average is None:
        return f"desired {decision.desired}: {spec.metric} usage unknown: {decision.problem}"
    return (
        f"desired {decision.desired}: average {spec.metric} usage {shown(spec.metric, decision.average)}, "
        f"target {shown(spec.metric, spec.target)} per instance"
    )


def shown(metric: str, value: float) -> str:
    """Return an average or a target as users write it: `50%`, `120Mi`."""
    return f"{value:.0f}%" if metric == "cpu" else f"{value / 1024**2:.0f}Mi"


def _average(spec: ScalingSpec, samples: Sequence[InstanceUsage]) -> tuple[float | None, str]:
    measured = [sample for sample in samples if sample.ready and sample.usage is not None]
    if spec.metric == "cpu" and any(sample.request <= 0 for sample in samples):
        return None, "missing request for cpu in a container"
    if not measured:
        return None, "no metrics of a ready instance yet"
    usage = math.fsum(sample.usage or 0.0 for sample in measured)
    if spec.metric == "cpu":
        return usage / math.fsum(sample.request for sample in measured) * 100, ""
    return usage / len(measured), ""


def _recommended(spec: ScalingSpec, samples: Sequence[InstanceUsage], current: int, ratio: float) -> int:
    measured = [sample for sample in samples if sample.ready and sample.usage is not None]
    missing = [sample for sample in samples if sample.ready and sample.usage is None]
    unready = [sample for sample in samples if not sample.ready] if ratio > 1 else []
    if not missing and not unready:
        return current if abs(1 - ratio) <= TOLERANCE else math.ceil(ratio * len(measured) - _EPSILON)
    # For instances without a measurement, assume a usage that speaks against the change.
    used = math.fsum(sample.usage or 0.0 for sample in measured)
    if ratio < 1:
        share = max(1.0, spec.target / 100) if spec.metric == "cpu" else spec.target
        used += math.fsum(sample.request * share if spec.metric == "cpu" else share for sample in missing)
    counted = [*measured, *missing, *unready]
    requested = math.fsum(sample.request for sample in counted) * spec.target / 100
    again = used / (requested if spec.metric == "cpu" else len(counted) * spec.target)
    if abs(1 - again) <= TOLERANCE or (ratio < 1) != (again < 1):
        return current
    count = math.ceil(again * len(counted) - _EPSILON)
    return current if (again < 1 and count > current) or (again > 1 and count < current) else count


def _stabilized(spec: ScalingSpec, recommended: Sequence[tuple[float, int]], current: int, now: float) -> int:
    """Scale down to the largest, up to the smallest recommendation within the window of each direction."""
    down = max(count for at, count in recommended if now - at <= spec.down_stabilization_seconds)
    up = min(count for at, count in recommended if now - at <= spec.up_stabilization_seconds)
    return min(max(current, up), down)
