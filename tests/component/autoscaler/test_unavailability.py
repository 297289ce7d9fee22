"""Redis or the engine is unavailable for a while: instances keep running, and everything converges afterwards."""

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from autoscaler.kubelet.kubelet import NodeOptions
from autoscaler.leader.leader import LeaderOptions, PublishedTables
from autoscaler.probes.checks import Checker
from autoscaler.roles.single_machine import SingleMachine
from autoscaler.runtime.model import ContainerSpec
from knoll.redis import keys
from knoll.redis.client import connected
from knoll.redis.lease import Lease
from knoll.values import kinds
from tests.component.autoscaler.conftest import Activator, AutoscalerHarness
from tests.component.knoll.conftest import RedisProcess
from tests.doubles.fake_engine import FakeProgram
from tests.doubles.fake_runtime import FakeRuntime
from tests.waiting import eventually


@pytest.fixture
async def server(tmp_path: Path) -> AsyncIterator[RedisProcess]:
    server = RedisProcess(tmp_path)
    await asyncio.to_thread(server.start)
    try:
        yield server
    finally:
        server.close()


@pytest.fixture
async def mortal(server: RedisProcess) -> AsyncIterator[AutoscalerHarness]:
    """A platform whose Redis can be killed."""
    async with connected(server.url, "autoscaler-test") as redis:
        harness = AutoscalerHarness(redis)
        try:
            yield harness
        finally:
            await harness.stop()
            await FakeRuntime(harness.engine).destroy()
            await harness.store.close()


async def test_a_redis_that_was_killed_costs_no_instance(mortal: AutoscalerHarness, server: RedisProcess) -> None:
    await mortal.start()
    key = await mortal.apply(annotations={"autoscaling.knative.dev/min-scale": "1"})
    (before,) = await mortal.ready(key)
    await mortal.has_status(key, initial_reached=True)
    await asyncio.to_thread(server.kill)
    mortal.engine.kill(before.id)
    await eventually(
        lambda: mortal.engine.instances[before.id].containers["user-container"].restarts == 1, condition="a restart"
    )
    await asyncio.to_thread(server.start)
    other = await eventually(lambda: mortal.apply("other-00001"), condition="Redis takes writes")
    await mortal.ready(other)
    await mortal.ready(key)
    assert before.id in mortal.engine.instances


async def test_an_engine_that_was_unavailable_is_queried_again(
    harness: AutoscalerHarness, activator: Activator
) -> None:
    await harness.start()
    key = await harness.apply()
    (before,) = await harness.ready(key)
    await harness.has_status(key, initial_reached=True)
    harness.engine.go_away()
    other = await harness.apply("other-00001")

    async def is_reported() -> bool:
        status = await harness.status(other)
        return bool(status and status.failure and not status.failure.final)

    await eventually(is_reported, condition="the failure names the engine")
    harness.engine.come_back()
    await harness.ready(other)
    await harness.has_status(other, failure=None, active="True")
    assert (await harness.ready(key))[0].id == before.id


async def test_an_end_during_an_outage_is_detected_when_the_engine_is_back(harness: AutoscalerHarness) -> None:
    await harness.start()
    key = await harness.apply()
    (before,) = await harness.ready(key)
    harness.engine.go_away()
    container = harness.engine.instances[before.id].containers["user-container"]
    harness.engine.end(container, 1)
    harness.engine.come_back()
    await eventually(
        lambda: harness.engine.instances[before.id].containers["user-container"].restarts == 1, condition="a restart"
    )
    await harness.ready(key)


async def test_an_instance_that_ended_without_a_leader_is_restarted_in_place(
    harness: AutoscalerHarness,
) -> None:
    await harness.start()
    key = await harness.apply()
    (before,) = await harness.ready(key)
    await harness.has_status(key, initial_reached=True)
    await harness.stop()
    harness.engine.kill(before.id)
    await harness.start()
    await eventually(
        lambda: harness.engine.instances[before.id].containers["user-container"].restarts == 1, condition="a restart"
    )
    assert (await harness.ready(key))[0].id == before.id


async def test_a_frozen_instance_is_thawed_when_it_is_taken_over(harness: AutoscalerHarness) -> None:
    await harness.start()
    key = await harness.apply()
    (before,) = await harness.ready(key)
    await harness.has_status(key, initial_reached=True)
    await harness.stop()
    await FakeRuntime(harness.engine).pause(before.id)
    await harness.start()
    await eventually(lambda: not harness.engine.instances[before.id].paused, condition="it runs on")
    assert (await harness.ready(key))[0].id == before.id


async def test_a_container_that_crashes_while_it_is_started_again_is_not_forgotten(harness: AutoscalerHarness) -> None:
    """Its second end is reported before the engine has responded."""
    lives = 0

    def behave(_: ContainerSpec) -> FakeProgram:
        nonlocal lives
        lives += 1
        return FakeProgram(listens_after=None, exits_after=0.0, exit_code=lives)

    harness.engine.behave = behave
    await harness.start()
    key = await harness.apply()

    async def second() -> bool:
        status = await harness.status(key)
        return bool(status and status.failure and status.failure.reason == "ExitCode2")

    await eventually(second, condition="the second end is reported")
    assert lives == 2


async def test_a_leader_without_its_lease_does_nothing_until_it_has_it_again(harness: AutoscalerHarness) -> None:
    runs: list[SingleMachine] = []

    async def duty() -> None:
        runtime = FakeRuntime(harness.engine)
        async with Checker() as checker:
            tables = PublishedTables(harness.endpoints, harness.scale, harness.instances)
            options = NodeOptions(), LeaderOptions(tick_seconds=0.1)
            machine = SingleMachine(runtime, checker, harness.store, harness.redis, tables, options)
            runs.append(machine)
            await machine.run()

    lease = Lease(harness.redis, "autoscaler", "first", ttl=1.0)
    leading = asyncio.create_task(lease.lead(duty))
    try:
        key = await harness.apply()
        (before,) = await harness.ready(key)
        await harness.has_status(key, initial_reached=True)
        await harness.redis.execute("SET", keys.lease("autoscaler"), "another", "PX", 1000)
        await eventually(lambda: not lease.leading, condition="it does not lead")
        tasks = {task.get_name() for task in asyncio.all_tasks()}
        assert f"instance {before.id}" not in tasks
        await eventually(lambda: len(runs) == 2, condition="it leads again")
        await eventually(lambda: runs[1].registry.by_uid, condition="it scales the Revision again")
        assert (await harness.ready(key))[0].id == before.id
    finally:
        leading.cancel()
        await asyncio.gather(leading, return_exceptions=True)


async def test_a_store_that_is_emptied_costs_no_instance_that_comes_back_with_its_revision(
    harness: AutoscalerHarness, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("autoscaler.spec.revision_catalog.EMPTY_SECONDS", 1.0)
    monkeypatch.setattr("autoscaler.leader.leader.REPUBLISH_SECONDS", 1.0)
    await harness.start()
    config = {"metadata": {"namespace": "knative-serving", "name": "config-autoscaler"}, "data": {}}
    await harness.store.create(kinds.CONFIG_MAP.id, config)
    key = await harness.apply()
    other = await harness.apply("other-00001")
    (kept,), (lost,) = await harness.ready(key), await harness.ready(other)
    assert harness.autoscaler is not None
    autoscaler = harness.autoscaler
    await eventually(lambda: autoscaler.leader._revisions._configured_once, condition="a tick")
    kept_body = await harness.store.get(kinds.REVISION.id, "default", "hello-00001")
    await harness.redis.execute("FLUSHALL")
    del kept_body["metadata"]["resourceVersion"]
    await harness.store.create(kinds.REVISION.id, kept_body)
    await eventually(
        lambda: lost.id not in harness.engine.instances, within=60, condition="removal of the lost instance"
    )
    assert kept.id in harness.engine.instances
    await eventually(lambda: _serves(harness, key, kept.id), within=60, condition="it keeps serving")


async def _serves(harness: AutoscalerHarness, key: str, name: str) -> bool:
    return [(endpoint.id, endpoint.state) for endpoint in await harness.published(key)] == [(name, "ready")]


async def test_the_progress_deadline_continues_with_the_next_autoscaler(harness: AutoscalerHarness) -> None:
    harness.engine.behave = lambda _: FakeProgram(listens_after=None)
    await harness.start()
    key = await harness.apply(annotations={"serving.knative.dev/progress-deadline": "1h"})
    before = await harness.has_status(key, initial_reached=False, active_reason="Deploying")
    assert before.deploying_since > 0
    await harness.stop()
    await harness.start()
    assert harness.autoscaler is not None
    (scaler,) = harness.autoscaler.registry.by_uid.values()
    assert scaler.progress.since == before.deploying_since
