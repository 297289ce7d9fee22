"""Load over time."""

from collections import Counter

import pytest
from hypothesis import given
from hypothesis import strategies as st

from autoscaler.window import Window

loads = st.lists(st.floats(0, 1000), min_size=1, max_size=90)


def filled(values: list[float], start: float = 1000.5) -> tuple[Window, float]:
    window = Window(3600)
    for second, value in enumerate(values):
        window.record(start + second, value)
    return window, start + len(values) - 1


def test_nothing_recorded_is_no_load() -> None:
    assert Window(60).mean(1000.0, 60) == 0


def test_the_first_second_counts_in_full() -> None:
    window, now = filled([50.0])
    assert window.mean(now, 60) == 50
    assert window.mean(now, 6) == 50


def test_reports_of_one_second_add_up() -> None:
    window = Window(60)
    for _ in range(3):
        window.record(1000.2, 4.0)
    assert window.mean(1000.9, 60) == 12


def test_a_late_report_counts_in_its_own_second() -> None:
    window = Window(60)
    for at in (1000.0, 1002.0, 1001.0):
        window.record(at, 3.0)
    assert window.mean(1002.0, 1) == 3
    assert window.mean(1002.0, 3) == 3


def test_a_second_without_a_report_counts_as_no_load() -> None:
    window, now = filled([10.0] * 6)
    assert window.mean(now + 6, 12) == 5


def test_a_second_that_nobody_has_reported_yet_does_not_count() -> None:
    window, now = filled([8.0] * 6)
    assert window.mean(now + 1, 1) == 8
    assert window.mean(now + 2, 1) == 0


def test_what_is_older_than_the_window_is_forgotten() -> None:
    window, now = filled([10.0] * 6)
    assert window.mean(now + 7, 6) == 0
    assert window.mean(now + 7200, 60) == 0


def test_a_window_begins_anew_after_a_long_silence() -> None:
    window = Window(60)
    window.record(1000.0, 10.0)
    window.record(5000.0, 10.0)
    assert window.mean(5000.0, 60) == 10


@given(values=loads, seconds=st.integers(1, 120))
def test_the_mean_is_that_of_the_last_seconds(values: list[float], seconds: int) -> None:
    window, now = filled(values)
    last = values[-seconds:]
    assert window.mean(now, seconds) == round(sum(last) / len(last), 6)


records = st.lists(st.tuples(st.integers(1000, 1050), st.integers(0, 1000)), min_size=1, max_size=60)


@given(records, st.integers(1, 60), st.integers(0, 5), st.booleans())
def test_whatever_the_order_a_mean_is_that_of_the_sums_of_each_second(
    found: list[tuple[int, int]], seconds: int, later: int, exponential: bool
) -> None:
    window, sums = Window(60), Counter[int]()
    for second, value in found:
        window.record(second + 0.5, value)
        sums[second] += value
    now = max(sums) + later
    newest = now - 1 if later == 1 else now
    length = max(1, min(seconds, newest - found[0][0] + 1))
    ages = range(length)
    wanted = sum(sums[newest - age] for age in ages) / length
    if exponential:
        k = max(1 - 0.0001 ** (1 / seconds), 0.2)
        wanted = sum(sums[newest - age] * k * (1 - k) ** age for age in ages)
    assert window.mean(now + 0.5, seconds, exponential=exponential) == pytest.approx(wanted, abs=1e-5)


@given(values=loads, seconds=st.integers(6, 120))
def test_a_mean_is_within_what_was_recorded(values: list[float], seconds: int) -> None:
    window, now = filled(values)
    assert min(values) - 1e-6 <= window.mean(now, seconds) <= max(values) + 1e-6


@given(values=loads, seconds=st.integers(6, 120))
def test_an_exponential_mean_is_never_above_what_was_recorded(values: list[float], seconds: int) -> None:
    window, now = filled(values)
    assert 0.0 <= window.mean(now, seconds, exponential=True) <= max(values) + 1e-6


@pytest.mark.parametrize(("seconds", "mean"), [(60, 67.2), (30, 78.5)])
def test_an_exponential_mean_weighs_as_knatives_does(seconds: int, mean: float) -> None:
    window, now = filled([0.0] * 55 + [100.0] * 5)
    assert window.mean(now, seconds, exponential=True) == pytest.approx(mean, abs=0.05)


def test_an_exponential_mean_follows_a_change_sooner() -> None:
    window, now = filled([0.0] * 50 + [100.0] * 10)
    assert window.mean(now, 60, exponential=True) > window.mean(now, 60)
