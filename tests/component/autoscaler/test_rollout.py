"""A Revision that is rolled out has instances before its traffic comes."""

from typing import Any

from knoll.values import kinds
from tests.component.autoscaler.conftest import QUICK, Activator, World
from tests.waiting import eventually

SCALE = {"knoll.dev/rollout-scale": "3"}


async def annotated(world: World, annotations: dict[str, Any]) -> None:
    found = await world.store.get(kinds.REVISION.id, "default", "hello-00001")
    found["metadata"]["annotations"] = annotations
    await world.store.update(kinds.REVISION.id, found)


async def test_what_the_next_share_wants_is_started_and_let_go_when_the_load_does_not_come(
    world: World, activator: Activator
) -> None:
    await world.start()
    key = await world.apply(annotations=QUICK)
    await world.ready(key)
    await world.gone()
    await annotated(world, QUICK | SCALE)
    await world.ready(key, 3)
    await world.says(key, desired=3, by_load=0)
    await annotated(world, QUICK)
    await world.gone()


async def test_instances_of_a_share_stay_until_their_load_has_filled_the_window(world: World) -> None:
    await world.start()
    window = {"autoscaling.knative.dev/window": "600s"}
    key = await world.apply(annotations=window | SCALE)
    await world.ready(key, 3)
    assert world.autoscaler is not None
    (scaler,) = world.autoscaler.scalers.values()
    before = scaler.decision
    await annotated(world, window)
    await eventually(lambda: not scaler.spec.rollout_scale, condition="the share was given")
    await eventually(lambda: scaler.decision not in (None, before), condition="a decision after that")
    assert scaler.decision is not None
    assert scaler.decision.want == 3
    assert "its share of the traffic, in a rollout, wants 3" in scaler.decision.clamps
