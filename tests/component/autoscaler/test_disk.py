"""Instances that write too much to the disk, on a real Redis and a fake engine."""

from typing import Any

from prometheus_client import Gauge

from autoscaler.kubelet import disk_watch
from knoll.messages.instances import InstanceEvent
from knoll.tables.protocol import Reset
from knoll.values import kinds
from tests.component.autoscaler.conftest import Activator, AutoscalerHarness
from tests.unit.autoscaler.sample_revisions import body
from tests.waiting import eventually

GI = 1024**3


def limited(limit: str) -> dict[str, Any]:
    (container,) = body()["spec"]["containers"]
    return {"containers": [{**container, "resources": {"limits": {"ephemeral-storage": limit}}}]}


async def security(harness: AutoscalerHarness, **data: str) -> None:
    keys = {f"{name.replace('_', '-')}": value for name, value in data.items()}
    meta = {"name": "config-security", "namespace": "knative-serving", "uid": "config-security"}
    await harness.store.create(kinds.CONFIG_MAP.id, {"metadata": meta, "data": keys})


def gauge(metric: Gauge) -> float:
    """The value of a metric without labels."""
    (family,) = metric.collect()
    return family.samples[0].value


async def evicted(harness: AutoscalerHarness, key: str, instance: str) -> InstanceEvent:
    """Return the Event of an evicted instance, as it is published to the API."""
    async for change in harness.instances.follow():
        entries = change.entries if isinstance(change, Reset) else {change.field: change.value}
        revision = entries.get(key)
        for row in revision.instances if revision else ():
            for event in row.events:
                if row.name == instance and event.reason == "Evicted":
                    return event
    raise AssertionError("the table has ended")


async def test_an_instance_over_its_limit_is_evicted_and_replaced(
    harness: AutoscalerHarness, activator: Activator
) -> None:
    await harness.start()
    key = await harness.apply(spec=limited("1Gi"))
    (endpoint,) = await harness.ready(key)
    harness.engine.written[endpoint.id, "user-container"] = 2 * GI
    event = await evicted(harness, key, endpoint.id)
    assert (event.type, event.message) == (
        "Warning", 'Container user-container exceeded its local ephemeral storage limit "1Gi". ',
    )  # fmt: skip
    await eventually(lambda: endpoint.id not in harness.engine.instances, condition="it is gone")
    (other,) = await harness.ready(key)
    assert other.id != endpoint.id


async def test_the_default_limit_is_the_config_maps(harness: AutoscalerHarness, activator: Activator) -> None:
    await security(harness, ephemeral_storage_limit="100Mi")
    await harness.start()
    key = await harness.apply()
    (endpoint,) = await harness.ready(key)
    harness.engine.written[endpoint.id, "user-container"] = GI
    event = await evicted(harness, key, endpoint.id)
    assert '"100Mi"' in event.message


async def test_on_a_nearly_full_disk_only_the_largest_user_is_evicted(
    harness: AutoscalerHarness, activator: Activator
) -> None:
    await harness.start()
    small, large = await harness.apply("small-00001"), await harness.apply("large-00001")
    (stays,), (goes,) = await harness.ready(small), await harness.ready(large)
    harness.engine.written |= {(stays.id, "user-container"): GI // 100, (goes.id, "user-container"): GI}
    harness.engine.free_disk = GI
    event = await evicted(harness, large, goes.id)
    assert event.message.startswith("The node was low on resource: ephemeral-storage. Threshold quantity: 2Gi, ")
    await eventually(lambda: goes.id not in harness.engine.instances)
    assert stays.id in harness.engine.instances
    assert (gauge(disk_watch.PRESSURE), gauge(disk_watch.FREE)) == (1, GI)


async def test_an_engine_that_cannot_measure_now_ends_nothing(harness: AutoscalerHarness, activator: Activator) -> None:
    await harness.start()
    key = await harness.apply(spec=limited("1Gi"))
    (endpoint,) = await harness.ready(key)
    harness.engine.away = True
    harness.engine.written[endpoint.id, "user-container"] = 2 * GI
    assert endpoint.id in harness.engine.instances
    harness.engine.away = False
    await evicted(harness, key, endpoint.id)
