"""How many instances a Revision should run: Knative's pod autoscaler as one pure function.

Source: Knative Serving, pkg/autoscaler/scaling/autoscaler.go (Scale) and pkg/reconciler/autoscaling/kpa/scaler.go.
"""

import math
from dataclasses import dataclass, replace

from knoll.resources.scaling import ScalingSpec


@dataclass(frozen=True, slots=True)
class RevisionMetrics:
    """What is measured of one Revision."""

    ready: int
    """Instances that take requests."""
    stable: float
    """Mean load over the stable window: concurrent requests, or requests per second."""
    panic: float
    """The same over the panic window."""
    waiting: int = 0
    """Requests that wait for an instance right now."""
    idle_seconds: float = 0.0
    """Seconds since the last request ended, or since the Revision became active, if that was later."""
    starting: int = 0
    """Instances that do not take requests yet, or are still to be started."""
    warm: int = 0
    """Instances that an open warm window keeps."""
    rollout: int = 0
    """Instances that have to be ready before more of the traffic moves to the Revision."""


@dataclass(frozen=True, slots=True)
class DecisionState:
    """What a decision needs from earlier decisions."""

    panic_since: float | None = None
    """When the load was last above the panic threshold; None outside panic."""
    panic_most: int = 0
    """The most instances desired in this panic."""
    recent: tuple[tuple[float, int], ...] = ()
    """(time, desired instances) within the scale-down delay."""
    zero_since: float | None = None
    """Time since which no instance is desired."""


@dataclass(frozen=True, slots=True)
class Decision:
    """How many instances, and why."""

    desired: int
    metrics: RevisionMetrics
    target: float
    """Load per instance."""
    desired_stable: int
    desired_panic: int
    panicking: bool
    excess_burst_capacity: float
    """Capacity left for a burst; below 0 the activator stays in the path."""
    by_load: int
    """What `desired` would be without `min_scale`, warm windows and rollouts."""
    clamps: tuple[str, ...]
    """Explanations of the changes to the number that results from load alone."""


def initial_state(ready: int, now: float) -> DecisionState:
    """Return the state of an autoscaler that begins with running instances and no history of their load.

    With more than one it begins in panic, so that it removes none for lack of data.
    """
    return DecisionState(panic_since=now, panic_most=ready) if ready > 1 else DecisionState()


def decide(
    spec: ScalingSpec, metrics: RevisionMetrics, state: DecisionState, now: float
) -> tuple[Decision, DecisionState]:
    """Return how many instances a Revision should run.

    Args:
        spec: scaling parameters.
        metrics: what is measured.
        state: what this function returned last time.
        now: seconds, on any monotonic clock.

    Returns:
        The decision, and the state to pass in next time.
    """
    clamps: list[str] = []
    base = max(1, metrics.ready)
    panic_load = max(metrics.panic, float(metrics.waiting))
    # Without an instance the waiting requests are the load: there is no history to average.
    stable_load = metrics.stable if metrics.ready else max(metrics.stable, float(metrics.waiting))
    desired_stable = math.ceil(stable_load / spec.target)
    desired_panic = math.ceil(panic_load / spec.target)
    most_up = math.ceil(spec.max_scale_up_rate * base)
    least_down = math.floor(metrics.ready / spec.max_scale_down_rate) if spec.reachable else 0

    def bounded(count: int) -> int:
        rated = min(max(count, least_down), most_up)
        # It raises only what the load requires: instances that the rate alone keeps continue to scale to zero.
        return max(rated, spec.activation_scale) if count and spec.activation_scale > 1 else rated

    state, panicking = _panic(spec, metrics, desired_panic, state, now)
    desired = bounded(desired_stable)
    if not least_down <= desired_stable <= most_up:
        clamps.append(f"scale rates allow {least_down} to {most_up}")
    if panicking:
        desired = max(state.panic_most, bounded(desired_panic), desired)
        state = replace(state, panic_most=desired)
    if desired == spec.activation_scale > max(desired_stable, desired_panic):
        clamps.append(f"activation-scale {spec.activation_scale}")
    if spec.scale_down_delay_seconds and spec.reachable:
        state, desired = _delay(spec, state, desired, now, clamps)
    by_load = min(desired, spec.max_scale or desired)
    desired = _bounds(spec, metrics, desired, clamps)
    state, desired = _to_zero(spec, metrics, state, desired, now, clamps)
    burst = math.floor(metrics.ready * spec.total - spec.target_burst_capacity - panic_load)
    excess = -1.0 if spec.target_burst_capacity < 0 else float(burst) if spec.target_burst_capacity else 0.0
    decision = Decision(
        desired, metrics, spec.target, desired_stable, desired_panic, panicking, excess, by_load, tuple(clamps)
    )
    return decision, state


def explain(decision: Decision) -> str:
    """Return the decision in a sentence."""
    metrics = decision.metrics
    mode = "panic" if decision.panicking else "stable"
    text = (
        f"desired {decision.desired} ({mode}): stable {metrics.stable:.2f} → {decision.desired_stable}, "
        f"panic {metrics.panic:.2f} → {decision.desired_panic}; target {decision.target:g} per instance; "
        f"{metrics.ready} ready, {metrics.waiting} waiting"
    )
    return f"{text}; {', '.join(decision.clamps)}" if decision.clamps else text


def _panic(
    spec: ScalingSpec, metrics: RevisionMetrics, desired_panic: int, state: DecisionState, now: float
) -> tuple[DecisionState, bool]:
    """Panic begins when the load exceeds the threshold, and ends a stable window after it last did."""
    above = desired_panic / max(1, metrics.ready) >= spec.panic_threshold_fraction
    if above:
        return replace(state, panic_since=now), True
    if state.panic_since is None:
        return state, False
    if now - state.panic_since > spec.window_seconds:
        return replace(state, panic_since=None, panic_most=0), False
    return state, True


def _delay(
    spec: ScalingSpec, state: DecisionState, desired: int, now: float, clamps: list[str]
) -> tuple[DecisionState, int]:
    recent = tuple(pair for pair in state.recent if now - pair[0] < spec.scale_down_delay_seconds)
    recent = (*(pair for pair in recent if pair[1] > desired), (now, desired))
    most = max(count for _, count in recent)
    if most > desired:
        clamps.append(f"scale-down-delay keeps {most}")
    return replace(state, recent=recent), most


def _bounds(spec: ScalingSpec, metrics: RevisionMetrics, desired: int, clamps: list[str]) -> int:
    least = max(spec.min_scale, metrics.warm, metrics.rollout)
    if spec.reachable and desired < least:
        bound = "rollout needs"
        if least == spec.min_scale:
            bound = "min-scale"
        elif least == metrics.warm:
            bound = "warm window keeps"
        clamps.append(f"{bound} {least}")
        desired = least
    if spec.max_scale and desired > spec.max_scale:
        clamps.append(f"max-scale {spec.max_scale}")
        desired = spec.max_scale
    return desired


def _to_zero(
    spec: ScalingSpec, metrics: RevisionMetrics, state: DecisionState, desired: int, now: float, clamps: list[str]
) -> tuple[DecisionState, int]:
    """The last instance goes only after a whole stable window without a request, and its retention period.

    Knative's grace period bounds how long its activator may take to get into the path; ours is always in it.
    """
    if desired > 0:
        return state if state.zero_since is None else replace(state, zero_since=None), desired
    if not spec.scale_to_zero and spec.reachable:
        clamps.append("scale to zero is disabled")
        return state, 1
    if (metrics.ready or metrics.starting) and spec.reachable and metrics.idle_seconds < spec.window_seconds:
        clamps.append("idle for less than the stable window")
        return replace(state, zero_since=None), 1
    since = state.zero_since if state.zero_since is not None else now
    state = replace(state, zero_since=since)
    if metrics.ready and spec.reachable and now - since < spec.retention_seconds:
        clamps.append(f"last instance kept for {spec.retention_seconds:g} s")
        return state, 1
    return state, 0
