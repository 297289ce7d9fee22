"""Times are written as metav1.Time: UTC, whole seconds."""

import pytest

from knoll.values.timestamps import timestamp


@pytest.mark.parametrize(
    ("seconds", "text"),
    [
        pytest.param(0.0, "1970-01-01T00:00:00Z", id="the epoch"),
        pytest.param(1_700_000_000.0, "2023-11-14T22:13:20Z", id="a whole second"),
        pytest.param(1_700_000_000.999, "2023-11-14T22:13:20Z", id="a fraction is cut off"),
        pytest.param(1_700_000_000, "2023-11-14T22:13:20Z", id="an integer"),
    ],
)
def test_a_time_is_cut_to_whole_seconds(seconds: float, text: str) -> None:
    assert timestamp(seconds) == text
