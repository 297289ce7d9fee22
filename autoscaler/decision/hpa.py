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
class Sample:
    """One instance and what it uses."""

    ready: bool
    usage: float | None
    """Cores or bytes; None when it was not measured."""
    request: float = 0.0
    """Cores that its containers request; 0 when one of them requests none. Of no interest for memory."""


@dataclass(frozen=True, slots=True)
class Memory:
    """What a decision must know of earlier ones."""

    recommended: tuple[tuple[float, int], ...] = ()
    """(time, instances), within the longer of the stabilization windows."""


@dataclass(frozen=True, slots=True)
class Decision:
    """How many instances, and why."""

    want: int
    average: float | None
    """Percent of the requested CPU, or bytes in one instance; None when nothing is known."""
    problem: str = ""
    """Why the usage could not be looked at; the number then stays."""


def decide(
    spec: ScalingSpec, samples: Sequence[Sample], current: int, memory: Memory, now: float
) -> tuple[Decision, Memory]:
    """Say how many instances a Revision should run.

    Args:
        spec: its metric is `cpu` (target: percent of the request) or `memory` (target: bytes).
        samples: of each instance that is not on its way out.
        current: instances that were wanted until now, >= 0.
        memory: what this function returned last time.
        now: seconds, on any clock that never goes back.

    Returns:
        The decision, never of fewer than one instance, and the memory to pass in next time.
    """
    least = max(1, spec.min_scale)
    most = max(least, spec.max_scale) if spec.max_scale else max(least, current + STEP_UP, current * FACTOR_UP)
    average, problem = _average(spec, samples)
    if average is None:
        return Decision(min(max(current, least), most), None, problem), memory
    recommended = _recommended(spec, samples, current, average / spec.target)
    window = max(spec.down_stabilization_seconds, spec.up_stabilization_seconds)
    kept = (*((at, count) for at, count in memory.recommended if now - at <= window), (now, recommended))
    stable = _stabilized(spec, kept, current, now)
    rated = min(stable, max(current * FACTOR_UP, current + STEP_UP))
    return Decision(min(max(rated, least), most), average), Memory(kept)


def explain(spec: ScalingSpec, decision: Decision) -> str:
    """The decision in a sentence."""
    if decision.average is None:
        return f"{decision.want} wanted: the usage of {spec.metric} is not known: {decision.problem}"
    return (
        f"{decision.want} wanted: an instance uses {shown(spec.metric, decision.average)} of {spec.metric} on average, "
        f"the target is {shown(spec.metric, spec.target)}"
    )


def shown(metric: str, value: float) -> str:
    """An average or a target as users write it: `50%`, `120Mi`."""
    return f"{value:.0f}%" if metric == "cpu" else f"{value / 1024**2:.0f}Mi"


def _average(spec: ScalingSpec, samples: Sequence[Sample]) -> tuple[float | None, str]:
    measured = [one for one in samples if one.ready and one.usage is not None]
    if spec.metric == "cpu" and any(one.request <= 0 for one in samples):
        return None, "missing request for cpu in a container"
    if not measured:
        return None, "no metrics of a ready instance yet"
    usage = math.fsum(one.usage or 0.0 for one in measured)
    if spec.metric == "cpu":
        return usage / math.fsum(one.request for one in measured) * 100, ""
    return usage / len(measured), ""


def _recommended(spec: ScalingSpec, samples: Sequence[Sample], current: int, ratio: float) -> int:
    measured = [one for one in samples if one.ready and one.usage is not None]
    missing = [one for one in samples if one.ready and one.usage is None]
    unready = [one for one in samples if not one.ready] if ratio > 1 else []
    if not missing and not unready:
        return current if abs(1 - ratio) <= TOLERANCE else math.ceil(ratio * len(measured) - _EPSILON)
    # Of what is not known the least is assumed that would speak against the change.
    used = math.fsum(one.usage or 0.0 for one in measured)
    if ratio < 1:
        share = max(1.0, spec.target / 100) if spec.metric == "cpu" else spec.target
        used += math.fsum(one.request * share if spec.metric == "cpu" else share for one in missing)
    counted = [*measured, *missing, *unready]
    requested = math.fsum(one.request for one in counted) * spec.target / 100
    again = used / (requested if spec.metric == "cpu" else len(counted) * spec.target)
    if abs(1 - again) <= TOLERANCE or (ratio < 1) != (again < 1):
        return current
    count = math.ceil(again * len(counted) - _EPSILON)
    return current if (again < 1 and count > current) or (again > 1 and count < current) else count


def _stabilized(spec: ScalingSpec, recommended: Sequence[tuple[float, int]], current: int, now: float) -> int:
    """Go down to the most, up to the least that was recommended within each direction's window."""
    down = max(count for at, count in recommended if now - at <= spec.down_stabilization_seconds)
    up = min(count for at, count in recommended if now - at <= spec.up_stabilization_seconds)
    return min(max(current, up), down)
