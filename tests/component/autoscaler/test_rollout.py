"""A Revision that is rolled out has instances before its traffic comes."""

from typing import Any

from knoll.values import kinds
from tests.component.autoscaler.conftest import QUICK, Activator, AutoscalerHarness
from tests.waiting import eventually

SCALE = {"knoll.dev/rollout-scale": "3"}


async def annotated(harness: AutoscalerHarness, annotations: dict[str, Any]) -> None:
    stored = await harness.store.get(kinds.REVISION.id, "default", "hello-00001")
    stored["metadata"]["annotations"] = annotations
    await harness.store.update(kinds.REVISION.id, stored)


async def test_instances_for_the_next_share_are_started_and_removed_if_the_load_does_not_come(
    harness: AutoscalerHarness, activator: Activator
) -> None:
    await harness.start()
    key = await harness.apply(annotations=QUICK)
    await harness.ready(key)
    await harness.gone()
    await annotated(harness, QUICK | SCALE)
    await harness.ready(key, 3)
    await harness.has_status(key, desired=3, by_load=0)
    await annotated(harness, QUICK)
    await harness.gone()


async def test_instances_of_a_share_stay_until_their_load_has_filled_the_window(harness: AutoscalerHarness) -> None:
    await harness.start()
    window = {"autoscaling.knative.dev/window": "600s"}
    key = await harness.apply(annotations=window | SCALE)
    await harness.ready(key, 3)
    assert harness.autoscaler is not None
    (scaler,) = harness.autoscaler.registry.by_uid.values()
    await annotated(harness, window)
    await eventually(lambda: not scaler.spec.rollout_scale, condition="the share was given")
    earlier = scaler.decision  # it may be older than the new spec; the next one is not
    await eventually(lambda: scaler.decision is not earlier, condition="a decision after that")
    assert scaler.decision is not None
    assert scaler.decision.desired == 3
    assert "rollout needs 3" in scaler.decision.clamps
