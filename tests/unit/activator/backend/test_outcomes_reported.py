"""The outcomes of requests in a report."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from activator.backend.stats import Histogram, Stats
from knoll.messages.reports import latency_bucket

ENDED = st.lists(st.tuples(st.sampled_from([0, 101, 200, 204, 404, 500, 503, 599]), st.floats(0.0, 100.0)), max_size=50)


@given(st.lists(ENDED, max_size=4))
def test_each_answer_is_reported_once_with_its_status_and_time(periods: list[list[tuple[int, float]]]) -> None:
    stats, now, histogram = Stats(0.0), 0.0, Histogram()
    for ended in periods:
        answered = [(status, seconds) for status, seconds in ended if status >= 200]
        for status, seconds in ended:
            stats.enter(now)
            stats.leave(now + seconds, now, status)
            histogram.add(now + seconds - now)
        assert stats.latency.counts == histogram.counts
        assert stats.latency.total == pytest.approx(histogram.total)
        now += 1000.0
        report = stats.report("default/hello-00001", now, 1.0, 0, 0)
        if report is None:
            assert not ended
            continue
        assert report.answers == len(answered) == sum(report.latency.values())
        assert report.errors == len([status for status, _ in answered if status >= 500])
        near = {latency_bucket(seconds + slip) for _, seconds in answered for slip in (0, 1e-9, -1e-9)}
        assert set(report.latency) <= near  # differences of times are rounded


def test_a_request_that_ends_after_the_last_report_is_still_reported() -> None:
    stats = Stats(0.0)
    stats.enter(0.0)
    assert stats.report("r", 1.0, 1.0, 1, 0) is not None
    stats.leave(1.0, 0.0, 500)
    report = stats.report("r", 2.0, 1.0, 0, 0)
    assert report is not None
    assert (report.answers, report.errors, sum(report.latency.values())) == (1, 1, 1)
