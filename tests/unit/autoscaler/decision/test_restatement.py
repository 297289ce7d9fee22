"""Two hours of traffic, tick by tick: every decision equals that of a plain restatement of the published algorithm.

The restatement shares no code and no data structure with the autoscaler: it keeps each second's load in a list, scans
it again at each tick, and follows the steps in the order in which Knative's documentation and source have them
(Knative Serving, pkg/autoscaler/scaling/autoscaler.go and pkg/reconciler/autoscaling/kpa/scaler.go). Time is virtual.
"""

import math
import random
from collections.abc import Iterator
from dataclasses import dataclass, field, replace

import pytest

from autoscaler.decision.kpa import DecisionState, RevisionMetrics, decide
from autoscaler.decision.window import Window
from knoll.config.platform import PlatformConfig
from knoll.resources.models.revision import Revision
from knoll.resources.scaling import ScalingSpec, scaling_spec

SPEC = replace(scaling_spec(Revision(), PlatformConfig()), total=10.0, target=7.0, utilization=0.7)
SECONDS = 2 * 3600
TICK = 2

HOURLY = (22, 15, 10, 7, 6, 8, 14, 27, 46, 61, 70, 75, 78, 76, 74, 73, 72, 75, 82, 92, 100, 88, 62, 38)
"""Requests at once over a day, hour by hour, of a site whose visitors live in one part of the world: percent of the
most. Five minutes stand for an hour."""


def traffic(seed: int) -> Iterator[float]:
    """Requests at once in each second: the day's curve, noise, bursts of half a minute, and quiet quarters of it."""
    chance = random.Random(seed)
    burst_until, burst, quiet_until = 0, 0.0, 0
    for second in range(SECONDS):
        place = second / SECONDS * len(HOURLY)
        before, after = HOURLY[int(place)], HOURLY[(int(place) + 1) % len(HOURLY)]
        level = before + (after - before) * (place % 1)
        if second >= burst_until and chance.random() < 0.004:
            burst_until, burst = second + chance.randrange(3, 40), chance.choice([50.0, 150.0, 400.0])
        if second >= quiet_until and chance.random() < 0.001:
            quiet_until = second + chance.randrange(30, 400)
        if second < quiet_until:
            yield 0.0
        else:
            yield max(0.0, level * chance.uniform(0.6, 1.4) + (burst if second < burst_until else 0.0))


@dataclass
class Published:
    """The algorithm as it is published, as plainly as it can be written."""

    spec: ScalingSpec
    loads: list[float] = field(default_factory=list)
    """Of each second since the first."""
    panic_at: int | None = None
    panic_most: int = 0
    recent_counts: list[tuple[int, int]] = field(default_factory=list)
    last_busy: int = -10_000
    zero_at: int | None = None

    def observe(self, second: int, load: float) -> None:
        self.loads.append(load)
        if load > 0:
            self.last_busy = second

    def average(self, seconds: float) -> float:
        recent = self.loads[-math.ceil(seconds) :]
        return round(sum(recent) / len(recent), 6) if recent else 0.0

    def weighted(self, seconds: float) -> float:
        share = max(1 - (1 - 0.9999) ** (1 / math.ceil(seconds)), 0.2)
        total, weight = 0.0, share
        for load in reversed(self.loads[-math.ceil(seconds) :]):
            total += load * weight
            weight *= 1 - share
        return round(total, 6)

    def scale(self, ready: int, starting: int, second: int) -> int:
        spec = self.spec
        stable = (self.weighted if spec.exponential else self.average)(spec.window_seconds)
        panic = self.average(spec.window_seconds * spec.panic_window_fraction)
        at_least_one = max(1, ready)

        # How many the load asks for, and how far one decision may go.
        ceiling = math.ceil(spec.max_scale_up_rate * at_least_one)
        floor = math.floor(at_least_one / spec.max_scale_down_rate) if spec.reachable else 0
        by_stable, by_panic = math.ceil(stable / spec.target), math.ceil(panic / spec.target)
        want_stable, want_panic = min(max(by_stable, floor), ceiling), min(max(by_panic, floor), ceiling)
        if spec.activation_scale > 1:
            if by_stable > 0 and spec.activation_scale > want_stable:
                want_stable = spec.activation_scale
            if by_panic > 0 and spec.activation_scale > want_panic:
                want_panic = spec.activation_scale

        # Panic begins and goes on above the threshold, and ends a stable window later.
        if by_panic / at_least_one >= spec.panic_threshold_fraction:
            self.panic_at = second
        elif self.panic_at is not None and self.panic_at + spec.window_seconds < second:
            self.panic_at, self.panic_most = None, 0
        want = want_stable
        if self.panic_at is not None:
            self.panic_most = max(self.panic_most, want_stable, want_panic)
            want = self.panic_most

        # The desired scale decreases only after the whole delay.
        if spec.scale_down_delay_seconds and spec.reachable:
            self.recent_counts.append((second, want))
            want = max(many for at, many in self.recent_counts if second - at < spec.scale_down_delay_seconds)

        # The bounds of the Revision.
        if spec.reachable:
            want = max(want, spec.min_scale)
        if spec.max_scale:
            want = min(want, spec.max_scale)
        return self.to_zero(want, ready, starting, second)

    def to_zero(self, want: int, ready: int, starting: int, second: int) -> int:
        """The last one stays for a stable window without a request, then for its retention."""
        spec = self.spec
        if want:
            self.zero_at = None
            return want
        if not spec.reachable:
            return 0
        if ready + starting and second - self.last_busy < spec.window_seconds:
            self.zero_at = None
            return 1
        if self.zero_at is None:
            self.zero_at = second
        return 1 if ready and second - self.zero_at < spec.retention_seconds else 0


def instances(chance: random.Random, ready: int, starting: list[int], want: int, second: int) -> tuple[int, list[int]]:
    """What becomes of instances: each needs a while to start, those too many go at once, and some die."""
    ready += sum(at <= second for at in starting)
    starting = [at for at in starting if at > second]
    if ready and chance.random() < 0.01:
        ready -= 1
    while ready + len(starting) < want:
        starting.append(second + chance.randrange(1, 6))
    while starting and ready + len(starting) > want:
        starting.pop()
    return min(ready, want), starting


SPECS = {
    "defaults": SPEC,
    "an instance for each request": replace(SPEC, total=1.0, target=1.0),
    "a short window": replace(SPEC, window_seconds=6.0),
    "newer load counts more": replace(SPEC, exponential=True),
    "panic late": replace(SPEC, panic_threshold_fraction=5.0),
    "panic over half the window": replace(SPEC, panic_window_fraction=0.5),
    "slow rates": replace(SPEC, max_scale_up_rate=1.5, max_scale_down_rate=1.2),
    "activation": replace(SPEC, activation_scale=4),
    "activation and panic": replace(SPEC, activation_scale=30, panic_threshold_fraction=1.2, window_seconds=12.0),
    "delay": replace(SPEC, scale_down_delay_seconds=60.0),
    "bounds": replace(SPEC, min_scale=2, max_scale=9),
    "retention": replace(SPEC, retention_seconds=45.0, window_seconds=20.0),
    "no Route leads to it": replace(SPEC, reachable=False, min_scale=3, scale_down_delay_seconds=60.0),
}


@pytest.mark.parametrize("name", SPECS)
def test_two_hours_of_decisions_are_as_published(name: str) -> None:
    spec = SPECS[name]
    published, window, memory = Published(spec), Window(max(spec.window_seconds, 60.0)), DecisionState()
    chance = random.Random(name)
    ready, starting, busy, most, zeros = 0, list[int](), -10_000.0, 0, 0
    for second, load in enumerate(traffic(7)):
        # Two activators, each with its part, at the end of the second that they speak of.
        part = load * 0.25
        window.record(second + 0.4, part)
        window.record(second + 0.5, load - part)
        published.observe(second, load)
        if load > 0:
            busy = second
        ready, starting = instances(chance, ready, starting, max(ready + len(starting), 0), second)
        if second % TICK:
            continue
        seen = RevisionMetrics(
            ready,
            window.mean(second + 0.9, spec.window_seconds, exponential=spec.exponential),
            window.mean(second + 0.9, spec.panic_window_seconds),
            idle_seconds=second - busy,
            starting=len(starting),
        )
        decision, memory = decide(spec, seen, memory, float(second))
        expected = published.scale(ready, len(starting), second)
        assert decision.desired == expected, f"second {second}: {decision}"
        ready, starting = instances(chance, ready, starting, decision.desired, second)
        most, zeros = max(most, decision.desired), zeros + (decision.desired == 0)
    # The traffic has to be such that the decisions are worth comparing.
    assert most >= 9
    assert zeros or spec.min_scale or spec.scale_down_delay_seconds or spec.retention_seconds
