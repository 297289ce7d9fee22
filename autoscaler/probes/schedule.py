"""When the next probe is due, and what its result means. Pure.

A container that has just started is probed every few milliseconds, beginning at `initialDelaySeconds`, so that a cold
start takes no longer than the program needs. Failures of such early tries do not count. Failures count at the times at
which Kubernetes probes, one period apart, and the first of them is one period after the initial delay: a container
whose startup probe has `periodSeconds: 240, failureThreshold: 1`, as Cloud Run exports it, has 240 s to start.

Source: Kubernetes, "Configure Liveness, Readiness and Startup Probes"; Knative's specification of the runtime
(periodSeconds 0).
"""

import math
from dataclasses import dataclass, replace
from typing import Literal

from autoscaler.probes.spec import Probes, ProbeSpec

ProbeKind = Literal["startup", "readiness", "liveness"]
Effect = Literal["ready", "unready", "restart"]

LATER_PERIOD, LATER_FAILURES = 10.0, 3
"""Period and threshold of a probe with a period of 0 after its first success: Kubernetes' defaults."""
EAGER_FIRST, EAGER_LONGEST = 0.001, 0.05
EAGER_SHARE = 1 / 16
"""Early tries wait this share of the elapsed time: a success is detected at most 6 % late."""
SLOW_LONGEST, SLOW_SHARE = 1.0, 1 / 64
"""A program that boots for more than three seconds is probed less often: its success is detected at most 2 % late. One
that needs a minute or more is probed once a second, so that a long period costs little."""

REPORT_SECONDS = 1.0
"""Failures of early tries are reported after this time, and at most this often."""


@dataclass(frozen=True, slots=True)
class Tally:
    """Consecutive results of one probe. Failed early tries are not counted."""

    successes: int = 0
    failures: int = 0
    passed: bool = False
    """It has reached its success threshold since the container started."""


@dataclass(frozen=True, slots=True)
class Health:
    """Probe results of one container since it started."""

    started: bool = False
    """The startup probe succeeded, or there is none."""
    ready: bool = False
    startup: Tally = Tally()
    readiness: Tally = Tally()
    liveness: Tally = Tally()


def begin(probes: Probes) -> tuple[Health, list[Effect]]:
    """Return the state of a container that has just been started."""
    if probes.startup is not None:
        return Health(), []
    ready = probes.readiness is None
    return Health(started=True, ready=ready), ["ready"] if ready else []


def active(probes: Probes, health: Health) -> list[ProbeKind]:
    """Return which probes run now: only startup until it has succeeded, then the other two."""
    if not health.started:
        return ["startup"]
    kinds: list[ProbeKind] = []
    if probes.readiness is not None:
        kinds.append("readiness")
    if probes.liveness is not None:
        kinds.append("liveness")
    return kinds


def counts(probe: ProbeSpec, passed: bool, elapsed: float, counted: float | None) -> bool:
    """Return whether a failure of the probe that begins now counts.

    Args:
        probe: its parameters.
        passed: it has succeeded since the container started, `Tally.passed`.
        elapsed: seconds since the probe was first due (the container's start, plus the initial delay), >= 0.
        counted: `elapsed` of the last probe whose failure counted; None before the first.
    """
    if passed:
        return True
    return elapsed >= _next_counted(probe, counted)


def delay(probe: ProbeSpec, passed: bool, elapsed: float, counted: float | None) -> float:
    """Return the seconds until the next try, > 0.

    Args: as those of `counts`, at the end of a probe.
    """
    if passed:
        return probe.period_seconds or LATER_PERIOD
    if not probe.eager and probe.period_seconds:
        return max(EAGER_FIRST, _next_counted(probe, counted) - elapsed)
    early = max(EAGER_FIRST, elapsed * EAGER_SHARE)
    if early > EAGER_LONGEST:
        early = min(SLOW_LONGEST, max(EAGER_LONGEST, elapsed * SLOW_SHARE))
    # A try that counts begins exactly when it is due.
    return max(EAGER_FIRST, min(early, _next_counted(probe, counted) - elapsed))


def early_timeout(probe: ProbeSpec, elapsed: float, counted: float | None) -> float:
    """Return the seconds that an early try may take, > 0: it must not delay the next one that counts.

    Args: as those of `counts`.
    """
    return max(EAGER_FIRST, min(probe.timeout_seconds, _next_counted(probe, counted) - elapsed))


def reports(elapsed: float, *, counts: bool, changed: bool, reported: float) -> bool:
    """Return whether to report a failure.

    Kubernetes writes an Event for each failed probe. Early tries fail every few milliseconds, which is not reported. If
    a program still fails after a second, its reason is reported at once, not a period later.

    Args:
        elapsed: seconds since the probe was first due.
        counts: the failure counts.
        changed: its message differs from the last reported one.
        reported: `elapsed` of the last reported one; -inf before the first.
    """
    return counts or (changed and elapsed >= REPORT_SECONDS and elapsed - reported >= REPORT_SECONDS)


def _next_counted(probe: ProbeSpec, counted: float | None) -> float:
    """Return the `elapsed` at which a failure counts next: a multiple of the period, at least one."""
    if not probe.period_seconds:
        return math.inf
    # Rounded: the sum of the waits is slightly below or above a multiple of the period.
    periods = 0 if counted is None else math.floor(counted / probe.period_seconds + 1e-6)
    return (periods + 1) * probe.period_seconds


def count(
    probes: Probes, health: Health, kind: ProbeKind, ok: bool, *, counts: bool = True
) -> tuple[Health, list[Effect]]:
    """Add one result.

    Args:
        counts: whether a failure counts; see the function `counts`.

    Returns:
        The new state and its effects: `ready` and `unready` when readiness changed, `restart` when the container has to
        be restarted (the failure threshold of startup or liveness was reached).
    """
    if not ok and not counts:
        tally: Tally = getattr(health, kind)
        # Thresholds are of consecutive results.
        return _with(health, kind, replace(tally, successes=0)), []
    match kind:
        case "startup":
            return _startup(probes, health, ok)
        case "readiness":
            return _readiness(probes, health, ok)
        case "liveness":
            return _liveness(probes, health, ok)


def _with(health: Health, kind: ProbeKind, tally: Tally) -> Health:
    match kind:
        case "startup":
            return replace(health, startup=tally)
        case "readiness":
            return replace(health, readiness=tally)
        case "liveness":
            return replace(health, liveness=tally)


def _startup(probes: Probes, health: Health, ok: bool) -> tuple[Health, list[Effect]]:
    assert probes.startup is not None
    tally = _tallied(health.startup, ok, probes.startup)
    if tally.passed:
        ready = probes.readiness is None
        return replace(health, startup=tally, started=True, ready=ready), ["ready"] if ready else []
    return replace(health, startup=tally), ["restart"] if _failed(tally, probes.startup) else []


def _readiness(probes: Probes, health: Health, ok: bool) -> tuple[Health, list[Effect]]:
    assert probes.readiness is not None
    tally = _tallied(health.readiness, ok, probes.readiness)
    ready = health.ready
    if ok and tally.successes >= probes.readiness.success_threshold:
        ready = True
    elif not ok and _failed(tally, probes.readiness):
        ready = False
    effects: list[Effect] = [] if ready == health.ready else ["ready" if ready else "unready"]
    return replace(health, readiness=tally, ready=ready), effects


def _liveness(probes: Probes, health: Health, ok: bool) -> tuple[Health, list[Effect]]:
    assert probes.liveness is not None
    tally = _tallied(health.liveness, ok, probes.liveness)
    return replace(health, liveness=tally), ["restart"] if _failed(tally, probes.liveness) else []


def _tallied(tally: Tally, ok: bool, probe: ProbeSpec) -> Tally:
    successes, failures = (tally.successes + 1, 0) if ok else (0, tally.failures + 1)
    return Tally(successes, failures, tally.passed or successes >= probe.success_threshold)


def _failed(tally: Tally, probe: ProbeSpec) -> bool:
    """A probe with a period of 0 never fails before its first success; the progress deadline bounds it."""
    if probe.period_seconds > 0:
        return tally.failures >= probe.failure_threshold
    return tally.passed and tally.failures >= LATER_FAILURES
