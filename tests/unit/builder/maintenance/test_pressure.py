"""When a nearly full disk brings the builder's clean-up forward, and what counts as nearly full."""

from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from builder.maintenance.pressure import CHECK_SECONDS, MIN_INTERVAL_SECONDS, is_pressed, until_next_check
from knoll.config import security
from knoll.values import kinds
from knoll.values.labels import SYSTEM_NAMESPACE
from tests.doubles.memory_store import MemoryStore

GI = 1024**3
periods = st.floats(0, 10_000) | st.sampled_from(
    [0.0, MIN_INTERVAL_SECONDS, MIN_INTERVAL_SECONDS + CHECK_SECONDS, 600.0]
)


@pytest.mark.parametrize(
    ("elapsed", "period", "pause"),
    [
        pytest.param(0, 600, 60, id="not within a minute of the last clean-up"),
        pytest.param(10, 600, 50, id="not within a minute, part of it over"),
        pytest.param(60, 600, 30, id="then every half minute"),
        pytest.param(580, 600, 20, id="not beyond the time of a clean-up in any case"),
        pytest.param(600, 600, 0, id="due"),
        pytest.param(700, 600, 0, id="overdue: the last look took its time"),
        pytest.param(0, 20, 20, id="clean-ups more often than once a minute need no look"),
        pytest.param(0, 0, 0, id="clean-ups without a pause"),
    ],
)
def test_free_space_is_checked_at_these_times(elapsed: float, period: float, pause: float) -> None:
    assert until_next_check(elapsed, period) == pause


@given(periods, st.lists(st.floats(0, 100), max_size=20))
def test_the_clean_up_is_on_time_however_long_checks_take(period: float, delays: list[float]) -> None:
    elapsed, looks = 0.0, [0.0]
    for delay in [*delays, *[0.0] * 400]:
        pause = until_next_check(elapsed, period)
        if not pause:
            break
        elapsed += pause
        looks.append(elapsed)
        assert elapsed <= period * (1 + 1e-9)
        elapsed += delay
    assert elapsed >= period * (1 - 1e-9)
    for before, after in pairwise(looks):
        assert after - before <= MIN_INTERVAL_SECONDS + max(delays, default=0.0) + CHECK_SECONDS
        assert after >= min(MIN_INTERVAL_SECONDS, period) * (1 - 1e-9)


async def store_with(data: dict[str, str] | None) -> MemoryStore:
    """Args: data: of config-security; None: there is none."""
    store = MemoryStore()
    if data is not None:
        metadata = {"name": security.NAME, "namespace": SYSTEM_NAMESPACE}
        body = {"apiVersion": "v1", "kind": "ConfigMap", "metadata": metadata, "data": data}
        await store.create(kinds.CONFIG_MAP.id, body)
    return store


@pytest.mark.parametrize(
    ("data", "free", "pressed"),
    [
        pytest.param(None, 2 * GI - 1, True, id="less than the default"),
        pytest.param(None, 2 * GI, False, id="as much as the default"),
        pytest.param({}, 0, True, id="nothing is free"),
        pytest.param({"disk-pressure-free": "10Gi"}, 9 * GI, True, id="less than configured"),
        pytest.param({"disk-pressure-free": "1Gi"}, 1.5 * GI, False, id="more than configured"),
        pytest.param({"disk-pressure-free": "0"}, 0, False, id="switched off"),
        pytest.param(None, None, False, id="the engine does not respond"),
        pytest.param({"disk-pressure-free": "plenty"}, 0, False, id="a configuration that cannot be read"),
    ],
)
async def test_less_free_space_than_configured_is_disk_pressure(
    data: dict[str, str] | None, free: float | None, pressed: bool
) -> None:
    assert await is_pressed(await store_with(data), lambda: None if free is None else int(free)) is pressed
