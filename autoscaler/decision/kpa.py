"""How many instances a Revision should run: Knative's pod autoscaler as one pure function.

Source: Knative Serving, pkg/autoscaler/scaling/autoscaler.go (Scale) and pkg/reconciler/autoscaling/kpa/scaler.go.
"""

import math
from dataclasses import dataclass, replace

from knoll.resources.scaling import ScalingSpec


@dataclass(frozen=True, slots=True)
class Seen:
    """What is observed of one Revision."""

    ready: int
    """Instances that take requests."""
    stable: float
    """Mean load over the stable window: requests at once, or per second."""
    panic: float
    """The same over the panic window."""
    waiting: int = 0
    """Requests known to wait right now."""
    idle_seconds: float = 0.0
    """Since the last request ended, or since it became active where that was later."""
    starting: int = 0
    """Instances that do not take requests yet, or are still to be started."""
    warm: int = 0
    """Instances that an open warm window keeps."""
    rollout: int = 0
    """Instances that are to be there before more of the traffic moves to it."""


@dataclass(frozen=True, slots=True)
class Memory:
    """What a decision must know of earlier ones."""

    panic_since: float | None = None
    """When the load was last above the panic threshold; None outside panic."""
    panic_most: int = 0
    """The most instances wanted in this panic."""
    wanted: tuple[tuple[float, int], ...] = ()
    """(time, instances) wanted, within the scale-down delay."""
    zero_since: float | None = None
    """Since when no instance is wanted."""


@dataclass(frozen=True, slots=True)
class Decision:
    """How many instances, and why."""

    want: int
    seen: Seen
    target: float
    """Load that one instance is meant to have."""
    stable_want: int
    panic_want: int
    panicking: bool
    excess_burst_capacity: float
    """Room left for a burst; below 0 the activator stays in the path."""
    by_load: int
    """What it would be without `min_scale`, warm windows and rollouts."""
    clamps: tuple[str, ...]
    """What changed the number after the load had said its own, in words."""


def starting_memory(ready: int, now: float) -> Memory:
    """The memory of an autoscaler that begins with instances running and no history of their load.

    With more than one it begins in panic, so that it takes none away for want of data.
    """
    return Memory(panic_since=now, panic_most=ready) if ready > 1 else Memory()


def decide(spec: ScalingSpec, seen: Seen, memory: Memory, now: float) -> tuple[Decision, Memory]:
    """Say how many instances a Revision should run.

    Args:
        spec: its scaling parameters.
        seen: what is observed.
        memory: what this function returned last time.
        now: seconds, on any clock that never goes back.

    Returns:
        The decision, and the memory to pass in next time.
    """
    clamps: list[str] = []
    base = max(1, seen.ready)
    panic_load = max(seen.panic, float(seen.waiting))
    # Without an instance those that wait are the load: there is no history to average.
    stable_load = seen.stable if seen.ready else max(seen.stable, float(seen.waiting))
    stable_want = math.ceil(stable_load / spec.target)
    panic_want = math.ceil(panic_load / spec.target)
    most_up = math.ceil(spec.max_scale_up_rate * base)
    least_down = math.floor(seen.ready / spec.max_scale_down_rate) if spec.reachable else 0

    def bounded(want: int) -> int:
        rated = min(max(want, least_down), most_up)
        # Only load is raised by it: where nothing but the rate holds instances up, they go on to zero.
        return max(rated, spec.activation_scale) if want and spec.activation_scale > 1 else rated

    memory, panicking = _panic(spec, seen, panic_want, memory, now)
    want = bounded(stable_want)
    if not least_down <= stable_want <= most_up:
        clamps.append(f"rates allow {least_down} to {most_up}")
    if panicking:
        want = max(memory.panic_most, bounded(panic_want), want)
        memory = replace(memory, panic_most=want)
    if want == spec.activation_scale > max(stable_want, panic_want):
        clamps.append(f"activation-scale {spec.activation_scale}")
    if spec.scale_down_delay_seconds and spec.reachable:
        memory, want = _delay(spec, memory, want, now, clamps)
    by_load = min(want, spec.max_scale or want)
    want = _bounds(spec, seen, want, clamps)
    memory, want = _to_zero(spec, seen, memory, want, now, clamps)
    burst = math.floor(seen.ready * spec.total - spec.target_burst_capacity - panic_load)
    excess = -1.0 if spec.target_burst_capacity < 0 else float(burst) if spec.target_burst_capacity else 0.0
    return Decision(want, seen, spec.target, stable_want, panic_want, panicking, excess, by_load, tuple(clamps)), memory


def explain(decision: Decision) -> str:
    """The decision in a sentence."""
    seen = decision.seen
    mode = "panic" if decision.panicking else "stable"
    text = (
        f"{decision.want} wanted ({mode}): load {seen.stable:.2f} over the stable window wants {decision.stable_want}, "
        f"{seen.panic:.2f} over the panic window wants {decision.panic_want}, at {decision.target:g} an instance; "
        f"{seen.ready} ready, {seen.waiting} waiting"
    )
    return f"{text}; {', '.join(decision.clamps)}" if decision.clamps else text


def _panic(spec: ScalingSpec, seen: Seen, panic_want: int, memory: Memory, now: float) -> tuple[Memory, bool]:
    """Panic begins above the threshold, is extended while above, ends a stable window after the last time."""
    above = panic_want / max(1, seen.ready) >= spec.panic_threshold_fraction
    if above:
        return replace(memory, panic_since=now), True
    if memory.panic_since is None:
        return memory, False
    if now - memory.panic_since > spec.window_seconds:
        return replace(memory, panic_since=None, panic_most=0), False
    return memory, True


def _delay(spec: ScalingSpec, memory: Memory, want: int, now: float, clamps: list[str]) -> tuple[Memory, int]:
    recent = tuple(pair for pair in memory.wanted if now - pair[0] < spec.scale_down_delay_seconds)
    recent = (*(pair for pair in recent if pair[1] > want), (now, want))
    most = max(count for _, count in recent)
    if most > want:
        clamps.append(f"scale-down-delay keeps {most}")
    return replace(memory, wanted=recent), most


def _bounds(spec: ScalingSpec, seen: Seen, want: int, clamps: list[str]) -> int:
    least = max(spec.min_scale, seen.warm, seen.rollout)
    if spec.reachable and want < least:
        why = "its share of the traffic, in a rollout, wants"
        if least == spec.min_scale:
            why = "min-scale"
        elif least == seen.warm:
            why = "an open warm window keeps"
        clamps.append(f"{why} {least}")
        want = least
    if spec.max_scale and want > spec.max_scale:
        clamps.append(f"max-scale {spec.max_scale}")
        want = spec.max_scale
    return want


def _to_zero(
    spec: ScalingSpec, seen: Seen, memory: Memory, want: int, now: float, clamps: list[str]
) -> tuple[Memory, int]:
    """The last instance goes only after a whole stable window without a request, and its retention.

    Knative's grace period bounds how long its activator may take to get into the path; ours is always there.
    """
    if want > 0:
        return memory if memory.zero_since is None else replace(memory, zero_since=None), want
    if not spec.scale_to_zero and spec.reachable:
        clamps.append("scale to zero is off")
        return memory, 1
    if (seen.ready or seen.starting) and spec.reachable and seen.idle_seconds < spec.window_seconds:
        clamps.append("not idle for a stable window yet")
        return replace(memory, zero_since=None), 1
    since = memory.zero_since if memory.zero_since is not None else now
    memory = replace(memory, zero_since=since)
    if seen.ready and spec.reachable and now - since < spec.retention_seconds:
        clamps.append(f"the last instance is kept for {spec.retention_seconds:g} s")
        return memory, 1
    return memory, 0
