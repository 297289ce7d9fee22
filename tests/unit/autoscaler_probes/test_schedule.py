"""What results of probes mean, and when the next is due."""

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from autoscaler.probes.schedule import (
    EAGER_LONGEST,
    EAGER_SHARE,
    LATER_FAILURES,
    LATER_PERIOD,
    Effect,
    Health,
    Kind,
    Tally,
    active,
    begin,
    count,
    delay,
)
from autoscaler.probes.spec import Probe, Probes, TcpCheck

PROBE = Probe(TcpCheck(8080))
EAGER = replace(PROBE, period_seconds=0.0)
results = st.lists(st.booleans(), max_size=40)


def run(probes: Probes, kind: Kind, said: list[bool], health: Health | None = None) -> tuple[Health, list[Effect]]:
    state, effects = (health, []) if health else begin(probes)
    for ok in said:
        state, more = count(probes, state, kind, ok)
        effects += more
    return state, effects


# --- readiness


@given(said=results, successes=st.integers(1, 4), failures=st.integers(1, 4))
def test_readiness_changes_after_its_threshold_of_equal_results(
    said: list[bool], successes: int, failures: int
) -> None:
    probe = replace(PROBE, success_threshold=successes, failure_threshold=failures)
    _, effects = run(Probes(readiness=probe), "readiness", said)
    wanted, ready = [], False
    for end in range(len(said) + 1):
        if not ready and end >= successes and all(said[end - successes : end]):
            ready = True
            wanted.append("ready")
        elif ready and end >= failures and not any(said[end - failures : end]):
            ready = False
            wanted.append("unready")
    assert effects == wanted


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
    assert delay(EAGER, health.readiness, 1.0) == LATER_PERIOD
    health, effects = run(probes, "readiness", [False] * LATER_FAILURES, health)
    assert (health.ready, effects) == (False, ["unready"])
    _, effects = run(probes, "readiness", [True], health)
    assert effects == ["ready"]


# --- startup


def test_startup_comes_first_and_alone() -> None:
    probes = Probes(startup=PROBE, readiness=PROBE, liveness=PROBE)
    health, effects = begin(probes)
    assert (active(probes, health), health.ready, effects) == (["startup"], False, [])
    health, effects = run(probes, "startup", [True], health)
    assert (active(probes, health), effects) == (["readiness", "liveness"], [])


def test_startup_alone_makes_ready() -> None:
    health, effects = run(Probes(startup=PROBE), "startup", [False, True])
    assert (health.ready, effects, active(Probes(startup=PROBE), health)) == (True, ["ready"], [])


@given(results)
def test_startup_and_liveness_ask_for_a_restart_after_three_failures_in_a_row(said: list[bool]) -> None:
    wanted = any(not any(said[at : at + 3]) for at in range(len(said) - 2))
    _, effects = run(Probes(liveness=PROBE), "liveness", said)
    assert ("restart" in effects) == wanted


def test_failed_startup_asks_for_a_restart() -> None:
    _, effects = run(Probes(startup=PROBE), "startup", [False] * 3)
    assert effects == ["restart"]


# --- delays


@given(st.floats(0, 1e4))
def test_an_eager_probe_is_late_by_a_small_share_at_most(elapsed: float) -> None:
    wait = delay(EAGER, Tally(), elapsed)
    assert 0.001 <= wait <= EAGER_LONGEST
    assert wait <= max(0.001, elapsed * EAGER_SHARE)


def test_an_app_that_boots_for_ten_seconds_is_not_asked_a_thousand_times() -> None:
    now, asked = 0.0, 0
    while now < 10:
        now += delay(EAGER, Tally(failures=asked), now)
        asked += 1
    assert asked < 300


@pytest.mark.parametrize("tally", [Tally(), Tally(passed=True), Tally(failures=9)])
def test_a_period_is_kept(tally: Tally) -> None:
    assert delay(replace(PROBE, period_seconds=7.0), tally, 100.0) == 7.0
