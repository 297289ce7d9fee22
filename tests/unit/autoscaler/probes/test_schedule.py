"""What results of probes mean, and when the next is due."""

import itertools
import math
from dataclasses import dataclass, field, replace

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from autoscaler.probes.schedule import (
    EAGER_FIRST,
    EAGER_SHARE,
    LATER_FAILURES,
    LATER_PERIOD,
    SLOW_LONGEST,
    Effect,
    Health,
    ProbeKind,
    Tally,
    active,
    begin,
    count,
    counts,
    delay,
    early_timeout,
    reports,
)
from autoscaler.probes.spec import Probes, ProbeSpec, TcpCheck

PROBE = ProbeSpec(TcpCheck(8080))
EAGER = replace(PROBE, period_seconds=0.0, eager=True)
results = st.lists(st.booleans(), max_size=40)


def run(
    probes: Probes, kind: ProbeKind, results: list[bool], health: Health | None = None
) -> tuple[Health, list[Effect]]:
    state, effects = (health, []) if health else begin(probes)
    for ok in results:
        state, more = count(probes, state, kind, ok)
        effects += more
    return state, effects


# --- readiness


@given(results=results, successes=st.integers(1, 4), failures=st.integers(1, 4))
def test_readiness_changes_after_its_threshold_of_equal_results(
    results: list[bool], successes: int, failures: int
) -> None:
    probe = replace(PROBE, success_threshold=successes, failure_threshold=failures)
    _, effects = run(Probes(readiness=probe), "readiness", results)
    expected, ready = [], False
    for end in range(len(results) + 1):
        if not ready and end >= successes and all(results[end - successes : end]):
            ready = True
            expected.append("ready")
        elif ready and end >= failures and not any(results[end - failures : end]):
            ready = False
            expected.append("unready")
    assert effects == expected


def test_a_container_without_readiness_probe_is_ready_at_once() -> None:
    health, effects = begin(Probes(liveness=PROBE))
    assert (health.ready, effects) == (True, ["ready"])


@given(st.integers(0, 500))
def test_eager_probing_never_gives_up_before_its_first_success(failures: int) -> None:
    health, effects = run(Probes(readiness=EAGER), "readiness", [False] * failures + [True])
    assert (health.ready, effects) == (True, ["ready"])


def test_eager_probing_becomes_kubernetes_defaults() -> None:
    probes = Probes(readiness=EAGER)
    health, _ = run(probes, "readiness", [True])
    assert delay(EAGER, health.readiness.passed, 1.0, None) == LATER_PERIOD
    health, effects = run(probes, "readiness", [False] * LATER_FAILURES, health)
    assert (health.ready, effects) == (False, ["unready"])
    _, effects = run(probes, "readiness", [True], health)
    assert effects == ["ready"]


# --- startup


def test_only_the_startup_probe_runs_first() -> None:
    probes = Probes(startup=PROBE, readiness=PROBE, liveness=PROBE)
    health, effects = begin(probes)
    assert (active(probes, health), health.ready, effects) == (["startup"], False, [])
    health, effects = run(probes, "startup", [True], health)
    assert (active(probes, health), effects) == (["readiness", "liveness"], [])


def test_a_startup_probe_without_readiness_probe_makes_ready() -> None:
    health, effects = run(Probes(startup=PROBE), "startup", [False, True])
    assert (health.ready, effects, active(Probes(startup=PROBE), health)) == (True, ["ready"], [])


@given(results)
def test_startup_and_liveness_ask_for_a_restart_after_three_failures_in_a_row(results: list[bool]) -> None:
    expected = any(not any(results[at : at + 3]) for at in range(len(results) - 2))
    _, effects = run(Probes(liveness=PROBE), "liveness", results)
    assert ("restart" in effects) == expected


def test_failed_startup_asks_for_a_restart() -> None:
    _, effects = run(Probes(startup=PROBE), "startup", [False] * 3)
    assert effects == ["restart"]


# --- when


@dataclass
class Simulated:
    """A probe of a container that is healthy from `healthy` on, for as long as it takes to pass or to give up."""

    probe: ProbeSpec
    kind: ProbeKind = "startup"
    healthy: float = math.inf
    passed: float | None = None
    """Seconds from the time at which the probe is first due."""
    restart: float | None = None
    counted: list[float] = field(default_factory=list)
    tries: int = 0

    def run(self, until: float = 1e6) -> "Simulated":
        probes = Probes(**{self.kind: self.probe})
        (health, _), elapsed = begin(probes), 0.0
        counted = None
        if not self.probe.eager:
            elapsed = self.probe.period_seconds
        while elapsed < until:
            tally: Tally = getattr(health, self.kind)
            counting = counts(self.probe, tally.passed, elapsed, counted)
            self.tries += 1
            health, effects = count(probes, health, self.kind, elapsed >= self.healthy, counts=counting)
            if counting:
                counted = elapsed
                self.counted.append(elapsed)
            if getattr(health, self.kind).passed:
                self.passed = elapsed
                return self
            if "restart" in effects:
                self.restart = elapsed
                return self
            elapsed += delay(self.probe, False, elapsed, counted)
        return self


periods = st.integers(1, 300).map(float)
CLOUD_RUN = ProbeSpec(
    TcpCheck(8080), period_seconds=240, timeout_seconds=240, success_threshold=1, failure_threshold=1, eager=True
)


@given(period=periods, threshold=st.integers(1, 5))
@example(period=1.0, threshold=3)
@example(period=31.0, threshold=5)
def test_a_container_that_never_answers_is_given_its_periods_and_no_more(period: float, threshold: int) -> None:
    probe = ProbeSpec(TcpCheck(8080), period_seconds=period, failure_threshold=threshold, eager=True)
    result = Simulated(probe).run()
    assert result.passed is None
    # The simulation adds up floats: a try that counts may seem to come too early, and comes EAGER_FIRST later then.
    expected = [period * (turn + 1) for turn in range(threshold)]
    assert result.counted == pytest.approx(expected, abs=2 * EAGER_FIRST)
    assert result.restart == pytest.approx(period * threshold, abs=2 * EAGER_FIRST)


@given(period=periods, threshold=st.integers(1, 5), share=st.floats(0, 0.98))
def test_a_container_that_comes_up_in_time_is_never_restarted_and_is_seen_soon(
    period: float, threshold: int, share: float
) -> None:
    healthy = period * threshold * share
    probe = ProbeSpec(TcpCheck(8080), period_seconds=period, failure_threshold=threshold, eager=True)
    result = Simulated(probe, healthy=healthy).run()
    assert result.restart is None
    assert result.passed is not None
    assert 0 <= result.passed - healthy <= max(0.051, healthy * 0.08, healthy * 0.02)


@given(period=periods)
def test_a_failure_before_the_first_period_never_counts(period: float) -> None:
    probe = ProbeSpec(TcpCheck(8080), period_seconds=period, failure_threshold=1, eager=True)
    result = Simulated(probe).run()
    assert not [at for at in result.counted if at < period * 0.999]


@given(period=periods, threshold=st.integers(1, 5))
def test_liveness_is_not_tried_early_and_its_first_failure_counts_after_a_period(period: float, threshold: int) -> None:
    probe = ProbeSpec(TcpCheck(8080), period_seconds=period, failure_threshold=threshold)
    result = Simulated(probe, "liveness").run()
    assert result.tries == threshold
    assert result.restart == pytest.approx(period * threshold)


@pytest.mark.parametrize(("boots", "late"), [(0.1, 0.01), (3.0, 0.06), (30.0, 0.5), (200.0, 1.0)])
def test_what_cloud_run_exports_is_ready_when_its_program_is(boots: float, late: float) -> None:
    result = Simulated(CLOUD_RUN, healthy=boots).run()
    assert result.restart is None
    assert result.passed is not None
    assert 0 <= result.passed - boots <= late


def test_a_long_period_costs_few_tries() -> None:
    assert Simulated(CLOUD_RUN).run().tries < 800


def test_a_readiness_probe_without_a_period_never_counts_a_failure_before_it_passed() -> None:
    result = Simulated(EAGER, "readiness").run(until=1000)
    assert (result.counted, result.passed) == ([], None)


@given(elapsed=st.floats(0, 1e3), timeout=st.floats(0.1, 300), period=periods)
def test_an_early_try_ends_before_the_next_that_counts(elapsed: float, timeout: float, period: float) -> None:
    probe = replace(CLOUD_RUN, period_seconds=period, timeout_seconds=timeout)
    counted = math.floor(elapsed / period) * period or None
    seconds = early_timeout(probe, elapsed, counted)
    assert 0 < seconds <= max(timeout, EAGER_FIRST)
    mark = (math.floor(elapsed / period + 1e-6) + 1) * period
    assert elapsed + seconds <= mark + EAGER_FIRST + 1e-3


@given(st.floats(0, 1e4))
def test_an_early_try_is_late_by_a_small_share_at_most(elapsed: float) -> None:
    wait = delay(EAGER, False, elapsed, None)
    assert EAGER_FIRST <= wait <= SLOW_LONGEST
    assert wait <= max(EAGER_FIRST, elapsed * EAGER_SHARE)


def test_an_app_that_boots_for_ten_seconds_is_not_asked_a_thousand_times() -> None:
    assert Simulated(EAGER, "readiness", healthy=10).run().tries < 300


@pytest.mark.parametrize("elapsed", [0.0, 3.0, 1e4])
def test_a_period_is_kept_after_the_first_success(elapsed: float) -> None:
    assert delay(replace(PROBE, period_seconds=7.0), True, elapsed, None) == 7.0
    assert counts(PROBE, True, elapsed, None)


# --- reports


@given(gaps=st.lists(st.floats(0.001, 0.3), max_size=60), changing=st.booleans())
def test_early_failures_are_reported_after_a_second_and_at_most_once_a_second(
    gaps: list[float], changing: bool
) -> None:
    elapsed, last, reported = 0.0, "", -math.inf
    at: list[float] = []
    for number, gap in enumerate(gaps):
        elapsed += gap
        message = f"refused {number}" if changing else "refused"
        if reports(elapsed, counts=False, changed=message != last, reported=reported):
            last, reported = message, elapsed
            at.append(elapsed)
    assert all(moment >= 1 for moment in at)
    assert all(after - before >= 1 for before, after in itertools.pairwise(at))
    assert len(at) <= 1 or changing
    assert bool(at) == (elapsed >= 1)


def test_a_failure_that_counts_is_always_reported() -> None:
    assert reports(10.0, counts=True, changed=False, reported=9.99)
