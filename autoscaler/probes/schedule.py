"""When the next probe is due and what its result means. Pure.

Source: Kubernetes, "Configure Liveness, Readiness and Startup Probes"; Knative's specification of the runtime
(periodSeconds 0).
"""

from dataclasses import dataclass, replace
from typing import Literal

from autoscaler.probes.spec import Probe, Probes

Kind = Literal["startup", "readiness", "liveness"]
Effect = Literal["ready", "unready", "restart"]

LATER_PERIOD, LATER_FAILURES = 10.0, 3
"""What eager probing becomes after its first success: Kubernetes' defaults."""
EAGER_FIRST, EAGER_LONGEST = 0.001, 0.05
EAGER_SHARE = 1 / 16
"""Eager probing waits this share of the time so far: seen at most 6 % late, and cheap for an app that boots long."""


@dataclass(frozen=True, slots=True)
class Tally:
    """Results of one probe in a row, up to now."""

    successes: int = 0
    failures: int = 0
    passed: bool = False
    """It reached its success threshold once since the container started."""


@dataclass(frozen=True, slots=True)
class Health:
    """What is known of one container since it started."""

    started: bool = False
    """The startup probe succeeded, or there is none."""
    ready: bool = False
    startup: Tally = Tally()
    readiness: Tally = Tally()
    liveness: Tally = Tally()


def begin(probes: Probes) -> tuple[Health, list[Effect]]:
    """The state of a container that was started just now."""
    if probes.startup is not None:
        return Health(), []
    ready = probes.readiness is None
    return Health(started=True, ready=ready), ["ready"] if ready else []


def active(probes: Probes, health: Health) -> list[Kind]:
    """Which probes run now: startup alone until it succeeded, then the other two."""
    if not health.started:
        return ["startup"]
    kinds: list[Kind] = []
    if probes.readiness is not None:
        kinds.append("readiness")
    if probes.liveness is not None:
        kinds.append("liveness")
    return kinds


def delay(probe: Probe, tally: Tally, elapsed: float) -> float:
    """Seconds from the last probe to the next.

    Args:
        probe: of which.
        tally: its results so far.
        elapsed: seconds since its first probe was due, >= 0.
    """
    if tally.passed or (probe.period_seconds > 0 and not probe.eager):
        return probe.period_seconds or LATER_PERIOD
    return min(EAGER_LONGEST, max(EAGER_FIRST, elapsed * EAGER_SHARE))


def count(probes: Probes, health: Health, kind: Kind, ok: bool) -> tuple[Health, list[Effect]]:
    """Take one result.

    Returns:
        The new state, and what follows of it: `ready` and `unready` when readiness changed, `restart` when the
        container must be started again (a failure threshold of startup or liveness was reached).
    """
    match kind:
        case "startup":
            return _startup(probes, health, ok)
        case "readiness":
            return _readiness(probes, health, ok)
        case "liveness":
            return _liveness(probes, health, ok)


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


def _tallied(tally: Tally, ok: bool, probe: Probe) -> Tally:
    successes, failures = (tally.successes + 1, 0) if ok else (0, tally.failures + 1)
    return Tally(successes, failures, tally.passed or successes >= probe.success_threshold)


def _failed(tally: Tally, probe: Probe) -> bool:
    """Eager probing never gives up before its first success: the progress deadline does."""
    if probe.period_seconds > 0:
        return tally.failures >= probe.failure_threshold
    return tally.passed and tally.failures >= LATER_FAILURES
