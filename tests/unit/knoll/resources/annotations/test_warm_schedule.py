"""When warm windows are open, across time zones and the changes to and from summer time."""

from datetime import date, datetime, timedelta
from zoneinfo import ZoneInfo

import pytest
from hypothesis import given
from hypothesis import strategies as st

from knoll.config.autoscaler import AutoscalerConfig
from knoll.resources.annotations.warm_schedule import FAR, parse_windows, warmth
from knoll.resources.validation.annotation_rules import autoscaling_problems

WORKDAYS = "0 8 * * mon-fri Europe/Berlin 10h min-scale=2"
BERLIN = ZoneInfo("Europe/Berlin")
TIMES = st.datetimes(datetime(2024, 1, 1), datetime(2030, 12, 31)).map(lambda moment: moment.replace(tzinfo=BERLIN))
SCHEDULES = st.lists(
    st.builds(
        "{} {} * * {} {} {}m min-scale={}".format,
        st.sampled_from(["0", "30", "*/20"]),
        st.integers(0, 23),
        st.sampled_from(["*", "mon-fri", "0,6"]),
        st.sampled_from(["UTC", "Europe/Berlin", "America/New_York", "Australia/Lord_Howe", "Asia/Kolkata"]),
        st.integers(1, 3000),
        st.integers(1, 9),
    ),
    min_size=1,
    max_size=3,
).map("; ".join)


def at(text: str, *moment: int) -> int:
    return warmth(parse_windows(text), datetime(*moment, tzinfo=BERLIN).timestamp()).min_scale  # type: ignore[arg-type, misc]


@pytest.mark.parametrize(
    ("moment", "expected"),
    [
        ((2026, 11, 23, 7, 59, 59), 0),
        ((2026, 11, 23, 8, 0, 0), 2),
        ((2026, 11, 23, 17, 59, 59), 2),
        ((2026, 11, 23, 18, 0, 0), 0),
        ((2026, 11, 22, 12, 0, 0), 0),  # a Sunday
        ((2026, 7, 1, 8, 0, 0), 2),  # summer time
        ((2026, 7, 1, 7, 59, 59), 0),
    ],
)
def test_a_window_opens_at_its_begin_and_closes_after_its_duration(moment: tuple[int, ...], expected: int) -> None:
    assert at(WORKDAYS, *moment) == expected


def test_the_largest_number_of_open_windows_counts() -> None:
    both = "0 8 * * * Europe/Berlin 10h min-scale=2; 0 12 * * * Europe/Berlin 1h min-scale=5;"
    assert [at(both, 2026, 11, 23, hour) for hour in (7, 9, 12, 13, 18)] == [0, 2, 5, 2, 0]


def test_without_a_time_zone_it_is_utc() -> None:
    assert [at("0 8 * * * 1h min-scale=1", 2026, 7, 1, hour) for hour in (8, 10)] == [0, 1]


def test_a_window_over_midnight_belongs_to_the_day_it_began() -> None:
    night = "0 22 * * fri Europe/Berlin 8h min-scale=1"
    assert [at(night, 2026, 11, day, hour) for day, hour in ((20, 21), (20, 23), (21, 5), (21, 6), (21, 23))] == [
        0, 1, 1, 0, 0,
    ]  # fmt: skip


def test_a_begin_that_summer_time_skips_is_at_the_change() -> None:
    # On 29 March 2026 it is 3:00 after 1:59 in Berlin.
    skipped = "30 2 * * * Europe/Berlin 1h min-scale=1"
    assert [at(skipped, 2026, 3, 29, 1, 59), at(skipped, 2026, 3, 29, 3, 1), at(skipped, 2026, 3, 29, 4, 1)] == [
        0,
        1,
        0,
    ]


def test_a_begin_that_the_change_back_repeats_counts_once() -> None:
    # On 25 October 2026 the hour from 2 to 3 comes twice in Berlin: at 0:00 and at 1:00 UTC.
    windows = parse_windows("30 2 * * * Europe/Berlin 20m min-scale=1")
    midnight = datetime(2026, 10, 25, tzinfo=ZoneInfo("UTC")).timestamp()
    opened = [minute for minute in range(180) if warmth(windows, midnight + minute * 60).min_scale]
    assert opened == list(range(30, 50))


@given(SCHEDULES, TIMES)
def test_nothing_changes_before_the_returned_time(text: str, moment: datetime) -> None:
    windows, now = parse_windows(text), moment.timestamp()
    now_warm = warmth(windows, now)
    assert now < now_warm.until <= now + FAR
    last = now_warm.until - 1e-3
    for share in (0.0, 0.3, 0.7, 1.0):
        assert warmth(windows, now + (last - now) * share).min_scale == now_warm.min_scale


@given(SCHEDULES, TIMES)
def test_only_open_windows_have_a_min_scale(text: str, moment: datetime) -> None:
    windows, now = parse_windows(text), moment.timestamp()
    opened = {0} | {moment.min_scale for moment in windows if now - (moment.last_begin(now) or 0.0) < moment.seconds}
    assert warmth(windows, now).min_scale == max(opened)


@given(st.integers(0, 23), st.integers(0, 59), st.dates(datetime(2024, 1, 1).date(), datetime(2030, 1, 1).date()))
def test_every_day_has_exactly_one_begin_of_a_daily_window(hour: int, minute: int, day: date) -> None:
    (window,) = parse_windows(f"{minute} {hour} * * * Europe/Berlin 1h min-scale=1")
    start = datetime.combine(day, datetime.min.time(), BERLIN)
    end = datetime.combine(day + timedelta(days=1), datetime.min.time(), BERLIN)
    begins, moment = [], start.timestamp() - 1
    while (begin := window.next_begin(moment)) is not None and begin < end.timestamp():
        begins.append(begin)
        moment = begin
    assert len(begins) == 1


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("", "does not have the form"),
        ("0 8 * * mon-fri 10h", "does not have the form"),
        ("0 8 * * mon-fri Europe/Berlin at 10h min-scale=2", "does not have the form"),
        ("0 8 * * mon-fri Europe/Atlantis 10h min-scale=2", 'unknown time zone "Europe/Atlantis"'),
        ("0 8 * * mon-fri ../../etc/passwd 10h min-scale=2", "unknown time zone"),
        ("0 25 * * * 10h min-scale=2", "bad hour"),
        ("0 8 * * fri-mon 10h min-scale=2", "bad day-of-week"),
        ("0 8 31 2 * 10h min-scale=2", "bad day-of-month"),
        ("0 8 * * * ten min-scale=2", "not a duration"),
        ("0 8 * * * 5s min-scale=2", "between 1m and 744h"),
        ("0 8 * * * 1000h min-scale=2", "between 1m and 744h"),
        ("0 8 * * * 10h 2", "min-scale=N"),
        ("0 8 * * * 10h min-scale=0", "of at least 1"),
        ("0 8 * * * 10h min-scale=two", "of at least 1"),
        (f"{WORKDAYS};;{WORKDAYS}", "does not have the form"),
    ],
)
def test_an_invalid_window_is_refused_with_its_reason(text: str, says: str) -> None:
    with pytest.raises(ValueError, match=says):
        parse_windows(text)
    (problem,) = autoscaling_problems({"knoll.dev/warm-schedule": text}, AutoscalerConfig(), "metadata.annotations")
    assert problem.paths == ("metadata.annotations.knoll.dev/warm-schedule",)
    assert says in str(problem)


def test_a_window_may_not_want_more_than_max_scale() -> None:
    both = {"knoll.dev/warm-schedule": WORKDAYS, "autoscaling.knative.dev/max-scale": "1"}
    (problem,) = autoscaling_problems(both, AutoscalerConfig(), "a")
    assert "max-scale=1 is less than min-scale=2 of a warm window" in str(problem)
    assert not list(autoscaling_problems({**both, "autoscaling.knative.dev/max-scale": "2"}, AutoscalerConfig(), "a"))
