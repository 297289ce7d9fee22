"""Warm windows keep instances, and let them go, without a request."""

from knoll.values import kinds
from tests.component.autoscaler.conftest import QUICK, Activator, AutoscalerHarness
from tests.waiting import eventually

ALWAYS = "* * * * * 2m min-scale=2"
"""Begins each minute for two: always open."""


async def test_an_open_window_keeps_instances_without_a_request_and_a_closed_one_lets_them_go(
    harness: AutoscalerHarness, activator: Activator
) -> None:
    await harness.start()
    key = await harness.apply(annotations={**QUICK, "knoll.dev/warm-schedule": ALWAYS})
    await harness.ready(key, 2)
    assert harness.autoscaler is not None
    (scaler,) = harness.autoscaler.scalers.values()

    async def is_told() -> bool:
        decision = scaler.decision
        return decision is not None and "an open warm window keeps 2" in decision.clamps

    await eventually(is_told, condition="the decision names the window")
    body = await harness.store.get(kinds.REVISION.id, "default", "hello-00001")
    body["metadata"]["annotations"] = QUICK
    await harness.store.update(kinds.REVISION.id, body)
    await harness.gone()


async def test_a_window_that_opens_wakes_what_has_no_instance(harness: AutoscalerHarness, activator: Activator) -> None:
    await harness.start()
    key = await harness.apply(annotations=QUICK)
    await harness.ready(key)
    await harness.says(key, desired=0)
    await harness.gone()
    body = await harness.store.get(kinds.REVISION.id, "default", "hello-00001")
    body["metadata"]["annotations"] = {**QUICK, "knoll.dev/warm-schedule": ALWAYS}
    await harness.store.update(kinds.REVISION.id, body)
    await harness.ready(key, 2)
