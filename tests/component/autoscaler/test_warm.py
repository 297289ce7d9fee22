"""Warm windows keep instances, and release them, without a request."""

from knoll.values import kinds
from tests.component.autoscaler.conftest import QUICK, Activator, AutoscalerHarness
from tests.waiting import eventually

ALWAYS = "* * * * * 2m min-scale=2"
"""Begins each minute for two: always open."""


async def test_an_open_window_keeps_idle_instances_and_a_closed_one_does_not(
    harness: AutoscalerHarness, activator: Activator
) -> None:
    await harness.start()
    key = await harness.apply(annotations={**QUICK, "knoll.dev/warm-schedule": ALWAYS})
    await harness.ready(key, 2)
    assert harness.autoscaler is not None
    (scaler,) = harness.autoscaler.registry.by_uid.values()

    async def is_reported() -> bool:
        decision = scaler.decision
        return decision is not None and "warm window keeps 2" in decision.clamps

    await eventually(is_reported, condition="the decision names the window")
    stored = await harness.store.get(kinds.REVISION.id, "default", "hello-00001")
    stored["metadata"]["annotations"] = QUICK
    await harness.store.update(kinds.REVISION.id, stored)
    await harness.gone()


async def test_a_window_that_opens_wakes_what_has_no_instance(harness: AutoscalerHarness, activator: Activator) -> None:
    await harness.start()
    key = await harness.apply(annotations=QUICK)
    await harness.ready(key)
    await harness.has_status(key, desired=0)
    await harness.gone()
    stored = await harness.store.get(kinds.REVISION.id, "default", "hello-00001")
    stored["metadata"]["annotations"] = {**QUICK, "knoll.dev/warm-schedule": ALWAYS}
    await harness.store.update(kinds.REVISION.id, stored)
    await harness.ready(key, 2)
