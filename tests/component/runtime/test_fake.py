"""What only the fake has: failures on demand, and counts of what happens in its instances."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import aclosing

import aiohttp
import pytest

from autoscaler.runtime.model import ContainerDied, ContainerSpec, InstanceSpec, Resync
from knoll.values.errors import ImageError, RuntimeUnavailableError
from tests.component.runtime.harness import fetch
from tests.doubles.fake_engine import FakeEngine, FakeProgram
from tests.doubles.fake_runtime import FakeRuntime
from tests.doubles.fake_server import FakeAnswer, FakeRequest
from tests.waiting import eventually

SPEC = InstanceSpec("hello-1", "default/hello", "uid", (ContainerSpec("user-container", "hello:1"),), 8080)


@pytest.fixture
async def engine() -> AsyncIterator[FakeEngine]:
    made = FakeEngine()
    yield made
    made.away = False
    await FakeRuntime(made).destroy()


async def test_failures_happen_as_often_as_configured(engine: FakeEngine) -> None:
    runtime = FakeRuntime(engine)
    engine.fail("start", ImageError("gone"), times=2)
    for _ in range(2):
        with pytest.raises(ImageError, match="gone"):
            await runtime.start(SPEC)
    await runtime.start(SPEC)


async def test_an_engine_that_is_away_answers_nothing_and_its_instances_run_on(engine: FakeEngine) -> None:
    runtime = FakeRuntime(engine)
    async with aclosing(runtime.events()) as events:
        assert isinstance(await anext(events), Resync)
        instance = await runtime.start(SPEC)
        engine.go_away()
        with pytest.raises(RuntimeUnavailableError):
            await runtime.instances()
        assert (await fetch(instance.address)).strip() == "hello-1"
        engine.come_back()
        assert isinstance(await anext(events), Resync)
        assert len(await runtime.instances()) == 1


async def test_requests_in_an_instance_are_counted(engine: FakeEngine) -> None:
    gate = asyncio.Event()

    async def answer(request: FakeRequest) -> FakeAnswer:
        await gate.wait()
        return FakeAnswer(request.body[::-1], 201, (("x-method", request.method),))

    engine.behave = lambda _: FakeProgram(answer=answer)
    instance = await FakeRuntime(engine).start(SPEC)
    server = engine.server("hello-1")
    async with aiohttp.ClientSession() as client:

        async def post() -> tuple[int, str, bytes]:
            async with client.post(f"http://{instance.address}:8080/", data=b"abc") as reply:
                return reply.status, reply.headers["x-method"], await reply.read()

        asked = [asyncio.create_task(post()) for _ in range(5)]
        await eventually(lambda: server.in_flight == 5)
        gate.set()
        assert await asyncio.gather(*asked) == [(201, "POST", b"cba")] * 5
    assert (server.in_flight, server.most_in_flight, server.answered) == (0, 5, 5)


async def test_a_killed_instance_breaks_its_connections_and_is_reported(engine: FakeEngine) -> None:
    runtime = FakeRuntime(engine)
    async with aclosing(runtime.events()) as events:
        assert isinstance(await anext(events), Resync)
        instance = await runtime.start(SPEC)
        async with aiohttp.ClientSession() as client:
            asked = asyncio.create_task(client.get(f"http://{instance.address}:8080/?sleep=60000"))
            await eventually(lambda: engine.server("hello-1").in_flight)
            engine.kill("hello-1", exit_code=1)
            with pytest.raises(aiohttp.ClientError):
                await asked
        died = await anext(events)
        assert isinstance(died, ContainerDied)
        assert died.exit_code == 1


async def test_a_thousand_instances_listen_side_by_side(engine: FakeEngine) -> None:
    runtime = FakeRuntime(engine)
    specs = [InstanceSpec(f"hello-{number}", "default/hello", "uid", SPEC.containers, 8080) for number in range(1000)]
    started = await asyncio.gather(*(runtime.start(spec) for spec in specs))
    assert len({instance.address for instance in started}) == 1000
    assert (await fetch(started[-1].address)).strip() == "hello-999"
