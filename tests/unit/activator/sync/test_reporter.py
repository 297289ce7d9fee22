"""When activators report."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from activator.sync.reporter import LATE_SECONDS, until_next


@given(now=st.floats(1.7e9, 1.9e9), period=st.sampled_from([0.1, 0.5, 1.0, 2.0]))
def test_reports_are_sent_shortly_after_the_end_of_a_period(now: float, period: float) -> None:
    wait = until_next(now, period)
    assert period / 2 - 1e-6 <= wait <= 1.5 * period + 2 * LATE_SECONDS
    assert (now + wait) % period == pytest.approx(LATE_SECONDS, abs=1e-5)
