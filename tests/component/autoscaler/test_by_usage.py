"""Revisions of the class that scales by CPU or memory, on a fake engine."""

from knoll.messages.scale import UsageStatus
from tests.component.autoscaler.conftest import QUICK, AutoscalerHarness
from tests.unit.autoscaler.sample_revisions import body
from tests.waiting import eventually

MIB = 1024**2


def annotations(**more: str) -> dict[str, str]:
    named = {f"autoscaling.knative.dev/{key.replace('_', '-')}": value for key, value in more.items()}
    return {"autoscaling.knative.dev/class": "hpa.autoscaling.knative.dev", **named}


async def test_memory_above_the_target_scales_up_and_no_load_does_not_scale_to_zero(harness: AutoscalerHarness) -> None:
    harness.measure_seconds = 0.2
    harness.engine.memory_of_each = 250 * MIB
    await harness.start()
    more = {"metric": "memory", "target": "100", "max_scale": "3"}
    key = await harness.apply(annotations={**annotations(**more), **QUICK})
    status = await harness.has_status(key, desired=3)
    assert status.usage is not None
    assert (status.usage.metric, status.usage.target, status.usage.average) == ("memory", 100 * MIB, 250 * MIB)
    assert "average memory usage 250Mi, target 100Mi per instance" in status.changes[-1].why
    await harness.ready(key, 3)
    harness.engine.memory_of_each = 0

    async def is_idle() -> bool:
        status = await harness.status(key)
        return status is not None and status.usage is not None and status.usage.average == 0

    await eventually(is_idle, condition="nothing is used")
    await harness.has_status(key, desired=1)
    await harness.ready(key)


async def test_cpu_is_measured_against_the_request(harness: AutoscalerHarness) -> None:
    harness.measure_seconds = 1.5
    harness.engine.cores_of_each = 1.0
    await harness.start()
    container = {**body()["spec"]["containers"][0], "resources": {"requests": {"cpu": "500m"}}}
    key = await harness.apply(
        spec={"containers": [container]}, annotations=annotations(metric="cpu", target="100", max_scale="2")
    )
    status = await harness.has_status(key, desired=2)
    assert status.usage is not None
    assert 150 <= (status.usage.average or 0) <= 250
    await harness.ready(key, 2)


async def test_cpu_without_a_request_keeps_the_scale_and_reports_the_reason(harness: AutoscalerHarness) -> None:
    harness.measure_seconds = 0.2
    await harness.start()
    key = await harness.apply(annotations=annotations(metric="cpu", target="50"))
    await harness.ready(key)
    problem = "missing request for cpu in a container"
    await harness.has_status(key, desired=1, usage=UsageStatus("cpu", 50.0, None, problem, 1, 0))
