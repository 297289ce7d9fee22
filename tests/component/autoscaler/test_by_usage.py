"""Revisions of the class that scales by CPU or memory, on a fake engine."""

from knoll.messages.scale import UsageStatus
from tests.component.autoscaler.conftest import QUICK, World
from tests.unit.autoscaler.sample_revisions import body
from tests.waiting import eventually

MIB = 1024**2


def annotations(**more: str) -> dict[str, str]:
    named = {f"autoscaling.knative.dev/{key.replace('_', '-')}": value for key, value in more.items()}
    return {"autoscaling.knative.dev/class": "hpa.autoscaling.knative.dev", **named}


async def test_memory_beyond_the_target_wants_more_and_no_load_does_not_mean_zero(world: World) -> None:
    world.measure_seconds = 0.2
    world.engine.memory_of_each = 250 * MIB
    await world.start()
    more = {"metric": "memory", "target": "100", "max_scale": "3"}
    key = await world.apply(annotations={**annotations(**more), **QUICK})
    status = await world.says(key, desired=3)
    assert status.usage is not None
    assert (status.usage.metric, status.usage.target, status.usage.average) == ("memory", 100 * MIB, 250 * MIB)
    assert "an instance uses 250Mi of memory on average, the target is 100Mi" in status.changes[-1].why
    await world.ready(key, 3)
    world.engine.memory_of_each = 0

    async def is_idle() -> bool:
        found = await world.status(key)
        return found is not None and found.usage is not None and found.usage.average == 0

    await eventually(is_idle, condition="nothing is used")
    await world.says(key, desired=1)
    await world.ready(key)


async def test_cpu_is_measured_against_the_request(world: World) -> None:
    world.measure_seconds = 1.5
    world.engine.cores_of_each = 1.0
    await world.start()
    container = {**body()["spec"]["containers"][0], "resources": {"requests": {"cpu": "500m"}}}
    key = await world.apply(
        spec={"containers": [container]}, annotations=annotations(metric="cpu", target="100", max_scale="2")
    )
    status = await world.says(key, desired=2)
    assert status.usage is not None
    assert 150 <= (status.usage.average or 0) <= 250
    await world.ready(key, 2)


async def test_cpu_without_a_request_stays_and_says_why(world: World) -> None:
    world.measure_seconds = 0.2
    await world.start()
    key = await world.apply(annotations=annotations(metric="cpu", target="50"))
    await world.ready(key)
    problem = "missing request for cpu in a container"
    await world.says(key, desired=1, usage=UsageStatus("cpu", 50.0, None, problem, 1, 0))
