"""Redis or the engine is away for a while: what runs goes on, and all converges afterwards."""

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from autoscaler.leader.leader import Autoscaler
from autoscaler.probes.checks import Checker
from autoscaler.runtime.protocol import ContainerSpec
from knoll.redis import keys
from knoll.redis.client import connected
from knoll.redis.lease import Lease
from knoll.values import kinds
from tests.component.autoscaler.conftest import Activator, World
from tests.component.knoll.conftest import RedisProcess
from tests.doubles.fake_runtime import FakeProgram, FakeRuntime
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
async def mortal(server: RedisProcess) -> AsyncIterator[World]:
    """A world whose Redis can be killed."""
    async with connected(server.url, "autoscaler-test") as redis:
        world = World(redis)
        try:
            yield world
        finally:
            await world.stop()
            await FakeRuntime(world.engine).destroy()
            await world.store.close()


async def test_a_redis_that_was_killed_costs_no_instance(mortal: World, server: RedisProcess) -> None:
    await mortal.start()
    key = await mortal.apply(annotations={"autoscaling.knative.dev/min-scale": "1"})
    (before,) = await mortal.ready(key)
    await mortal.says(key, initial_reached=True)
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


async def test_an_engine_that_was_away_is_asked_again(world: World, activator: Activator) -> None:
    await world.start()
    key = await world.apply()
    (before,) = await world.ready(key)
    await world.says(key, initial_reached=True)
    world.engine.go_away()
    other = await world.apply("other-00001")

    async def said() -> bool:
        found = await world.status(other)
        return bool(found and found.failure and not found.failure.final)

    await eventually(said, condition="it says that the engine is away")
    world.engine.come_back()
    await world.ready(other)
    await world.says(other, failure=None, active="True")
    assert (await world.ready(key))[0].id == before.id


async def test_an_end_that_nobody_told_is_found_when_the_engine_is_back(world: World) -> None:
    await world.start()
    key = await world.apply()
    (before,) = await world.ready(key)
    world.engine.go_away()
    container = world.engine.instances[before.id].containers["user-container"]
    world.engine.end(container, 1)
    world.engine.come_back()
    await eventually(
        lambda: world.engine.instances[before.id].containers["user-container"].restarts == 1, condition="a restart"
    )
    await world.ready(key)


async def test_an_instance_that_ended_while_nobody_looked_is_started_again_in_its_place(world: World) -> None:
    await world.start()
    key = await world.apply()
    (before,) = await world.ready(key)
    await world.says(key, initial_reached=True)
    await world.stop()
    world.engine.kill(before.id)
    await world.start()
    await eventually(
        lambda: world.engine.instances[before.id].containers["user-container"].restarts == 1, condition="a restart"
    )
    assert (await world.ready(key))[0].id == before.id


async def test_a_frozen_instance_is_thawed_when_it_is_taken_over(world: World) -> None:
    await world.start()
    key = await world.apply()
    (before,) = await world.ready(key)
    await world.says(key, initial_reached=True)
    await world.stop()
    await FakeRuntime(world.engine).pause(before.id)
    await world.start()
    await eventually(lambda: not world.engine.instances[before.id].paused, condition="it runs on")
    assert (await world.ready(key))[0].id == before.id


async def test_a_container_that_crashes_while_it_is_started_again_is_not_forgotten(world: World) -> None:
    """Its second end is told before the engine has answered."""
    lives = 0

    def behave(_: ContainerSpec) -> FakeProgram:
        nonlocal lives
        lives += 1
        return FakeProgram(listens_after=None, exits_after=0.0, exit_code=lives)

    world.engine.behave = behave
    await world.start()
    key = await world.apply()

    async def second() -> bool:
        found = await world.status(key)
        return bool(found and found.failure and found.failure.reason == "ExitCode2")

    await eventually(second, condition="the second end is told")
    assert lives == 2


async def test_a_leader_that_loses_its_lease_acts_no_more_until_it_has_it_again(world: World) -> None:
    runs: list[Autoscaler] = []

    async def duty() -> None:
        runtime = FakeRuntime(world.engine)
        async with Checker() as checker:
            one = Autoscaler(
                runtime,
                checker,
                world.store,
                world.redis,
                world.endpoints,
                world.scale,
                world.instances,
                tick_seconds=0.1,
            )
            runs.append(one)
            await one.run()

    lease = Lease(world.redis, "autoscaler", "first", ttl=1.0)
    leading = asyncio.create_task(lease.lead(duty))
    try:
        key = await world.apply()
        (before,) = await world.ready(key)
        await world.says(key, initial_reached=True)
        await world.redis.set(keys.lease("autoscaler"), "another", px=1000)
        await eventually(lambda: not lease.leading, condition="it does not lead")
        tasks = {task.get_name() for task in asyncio.all_tasks()}
        assert f"instance {before.id}" not in tasks
        await eventually(lambda: len(runs) == 2, condition="it leads again")
        await eventually(lambda: runs[1].scalers, condition="it looks after the Revision again")
        assert (await world.ready(key))[0].id == before.id
    finally:
        leading.cancel()
        await asyncio.gather(leading, return_exceptions=True)


async def test_a_store_that_is_emptied_costs_no_instance_that_comes_back_with_its_revision(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("autoscaler.leader.leader.EMPTY_SECONDS", 1.0)
    monkeypatch.setattr("autoscaler.leader.leader.REPUBLISH_SECONDS", 1.0)
    await world.start()
    config = {"metadata": {"namespace": "knative-serving", "name": "config-autoscaler"}, "data": {}}
    await world.store.create(kinds.CONFIG_MAP.id, config)
    key = await world.apply()
    other = await world.apply("other-00001")
    (kept,), (lost,) = await world.ready(key), await world.ready(other)
    assert world.autoscaler is not None
    autoscaler = world.autoscaler
    await eventually(lambda: autoscaler._configured_once, condition="a tick")
    kept_body = await world.store.get(kinds.REVISION.id, "default", "hello-00001")
    await world.redis.flushall()
    del kept_body["metadata"]["resourceVersion"]
    await world.store.create(kinds.REVISION.id, kept_body)
    await eventually(lambda: lost.id not in world.engine.instances, within=60, condition="removal of the lost instance")
    assert kept.id in world.engine.instances
    await eventually(lambda: _serves(world, key, kept.id), within=60, condition="it keeps serving")


async def _serves(world: World, key: str, name: str) -> bool:
    return [(one.id, one.state) for one in await world.listed(key)] == [(name, "ready")]


async def test_the_progress_deadline_goes_on_where_the_last_autoscaler_left_it(world: World) -> None:
    world.engine.behave = lambda _: FakeProgram(listens_after=None)
    await world.start()
    key = await world.apply(annotations={"serving.knative.dev/progress-deadline": "1h"})
    before = await world.says(key, initial_reached=False, active_reason="Deploying")
    assert before.deploying_since > 0
    await world.stop()
    await world.start()
    assert world.autoscaler is not None
    (scaler,) = world.autoscaler.scalers.values()
    assert scaler.status().deploying_since == before.deploying_since
