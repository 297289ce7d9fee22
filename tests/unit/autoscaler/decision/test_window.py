"""Load over time."""

from collections import Counter
from itertools import accumulate

import pytest
from hypothesis import given
from hypothesis import strategies as st

from activator.backend.stats import Stats
from autoscaler.decision.window import KEPT_SECONDS, Load, Window

Sent = tuple[str, float, float, float]
"""One report: activator, end, period, mean."""
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


def test_a_second_without_a_report_does_not_count() -> None:
    window, now = filled([8.0] * 6)
    assert window.mean(now + 1, 1) == 8
    assert window.mean(now + 2, 1) == 0


def test_what_is_older_than_the_window_is_forgotten() -> None:
    window, now = filled([10.0] * 6)
    assert window.mean(now + 7, 6) == 0
    assert window.mean(now + 7200, 60) == 0


def test_a_window_starts_again_after_a_long_silence() -> None:
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
    buckets: list[tuple[int, int]], seconds: int, later: int, exponential: bool
) -> None:
    window, sums = Window(60), Counter[int]()
    for second, value in buckets:
        window.record(second + 0.5, value)
        sums[second] += value
    now = max(sums) + later
    newest = now - 1 if later == 1 else now
    length = max(1, min(seconds, newest - buckets[0][0] + 1))
    ages = range(length)
    expected = sum(sums[newest - age] for age in ages) / length
    if exponential:
        k = max(1 - 0.0001 ** (1 / seconds), 0.2)
        expected = sum(sums[newest - age] * k * (1 - k) ** age for age in ages)
    assert window.mean(now + 0.5, seconds, exponential=exponential) == pytest.approx(expected, abs=1e-5)


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


def counted(requests: list[tuple[int, int]], ends: list[float], name: str) -> list[Sent]:
    """What an activator's `Stats` say of requests (begin and end in hundredths of a second), reported at `ends`."""
    stats, sent, begun = Stats(0.0), [], 0.0
    events = [(begin / 100, 1) for begin, _ in requests] + [(end / 100, -1) for _, end in requests]
    moments = sorted([*events, *((end, 0) for end in ends)], key=lambda event: (event[0], event[1]))
    for at, change in moments:
        if change > 0:
            stats.enter(at)
        elif change < 0:
            stats.leave(at, at, 200)
        else:
            report = stats.report("r", at, at - begun, 0, 0)
            sent.append((name, at, at - begun, report.concurrency if report else 0.0))
            begun = at
    return sent


def most_at_once(requests: list[tuple[int, int]]) -> int:
    events = sorted([(begin, 1) for begin, _ in requests] + [(end, -1) for _, end in requests])
    active = most = 0
    for _, change in events:
        active += change
        most = max(most, active)
    return most


spans = st.lists(
    st.tuples(st.integers(0, 1900), st.integers(1, 800)).map(lambda span: (span[0], span[0] + span[1])),
    min_size=1, max_size=30,
)  # fmt: skip
fates = st.lists(st.tuples(st.sampled_from(["comes", "comes", "comes", "lost", "twice"]), st.integers(0, 3)))


def arrive(load: Load, sent: list[Sent], fates_: list[tuple[str, int]]) -> None:
    """Reports come late, in another order, twice or not at all."""
    coming = []
    for number, report in enumerate(sent):
        fate, late = fates_[number % len(fates_)] if fates_ else ("comes", 0)
        if fate != "lost":
            coming.append((number + late, report))
        if fate == "twice":
            coming.append((number + late + 1, report))
    for _, report in sorted(coming, key=lambda each: each[0]):
        load.report(*report)


def largest_mean(load: Load) -> float:
    window = load.window
    return max(
        window.mean(now / 2, seconds, exponential=exponential)
        for now in range(70) for seconds in (1, 3, 6, 60) for exponential in (False, True)
    )  # fmt: skip


@given(requests=spans, gaps=st.lists(st.floats(0.05, 3.5), min_size=8, max_size=40), fates_=fates)
def test_a_mean_is_never_more_than_the_requests_that_there_were_at_one_time(
    requests: list[tuple[int, int]], gaps: list[float], fates_: list[tuple[str, int]]
) -> None:
    load, ends = Load(60), list(accumulate(gaps))
    arrive(load, counted(requests, ends, "a"), fates_)
    assert largest_mean(load) <= most_at_once(requests) + 1e-5


@given(first=spans, second=spans, fates_=fates)
def test_nor_are_the_means_of_several_activators_together(
    first: list[tuple[int, int]], second: list[tuple[int, int]], fates_: list[tuple[str, int]]
) -> None:
    load, ends = Load(60), [float(end) for end in range(1, 30)]
    reports = zip(counted(first, ends, "a"), counted(second, ends, "b"), strict=True)
    arrive(load, [report for both in reports for report in both], fates_)
    assert largest_mean(load) <= most_at_once(first + second) + 1e-5


@given(requests=spans, late=st.floats(0, 0.3))
def test_what_comes_in_time_is_counted_in_full(requests: list[tuple[int, int]], late: float) -> None:
    load, ends = Load(60), [float(end) + late for end in range(1, 31)]
    for report in counted(requests, ends, "a"):
        load.report(*report)
    area = sum(end - begin for begin, end in requests) / 100
    assert load.window.mean(30.5, 30) == pytest.approx(area / 30, abs=2 * len(requests) * late / 30 + 1e-5)


def test_a_report_over_several_seconds_fills_them() -> None:
    load = Load(60)
    load.report("a", 1001.0, 1.0, 10.0)
    load.report("a", 1004.2, 3.2, 10.0)
    assert load.window.mean(1004.5, 4) == 10


def test_a_report_that_comes_too_late_is_left_out() -> None:
    load = Load(60)
    load.report("a", 1020.0, 1.0, 10.0)
    load.report("a", 1020.0 - KEPT_SECONDS, 1.0, 10.0)
    assert load.window.mean(1020.5, 30) == 10


def test_two_hundred_requests_on_a_slow_machine_are_two_hundred() -> None:
    """31 instances were started instead of 29: each report came late and was counted for more than a second."""
    load, at = Load(60), 1000.0
    for period in (1.02, 1.21, 1.0557, 1.4, 1.0, 1.1):
        at += period
        load.report("a", at, period, 200.0)
        assert load.window.mean(at, 6) <= 200
        assert load.window.mean(at, 60) <= 200
