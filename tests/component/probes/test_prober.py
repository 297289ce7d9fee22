"""Following an instance of the fake runtime with probes, on real sockets."""

import asyncio
from collections.abc import AsyncIterator
from dataclasses import dataclass
from typing import Any

import pytest

from autoscaler.probes.checks import Checker
from autoscaler.probes.prober import Change, ProbeFailedError, Prober, Ready, RestartWanted, Unready, until_ready
from autoscaler.probes.spec import ExecCheck, HttpCheck, Probe, Probes, TcpCheck
from autoscaler.runtime.fake import FakeEngine, FakeProgram, FakeRuntime
from autoscaler.runtime.fake_server import FakeAnswer, FakeRequest
from autoscaler.runtime.protocol import ContainerSpec, Instance, InstanceSpec
from knoll.errors import NotFoundError
from tests.waiting import eventually

NAME, APP, PORT = "hello-1", "user-container", 8080
EAGER = Probe(TcpCheck(PORT), period_seconds=0)
FAST: dict[str, Any] = {"period_seconds": 0.01, "timeout_seconds": 5.0}


@dataclass
class App:
    """A program whose health a test sets."""

    status: int = 200
    asked: int = 0

    async def answer(self, _: FakeRequest) -> FakeAnswer:
        self.asked += 1
        return FakeAnswer(status=self.status)


@dataclass
class Stage:
    engine: FakeEngine
    runtime: FakeRuntime
    checker: Checker
    app: App

    async def start(self, *containers: str, after: float | None = 0.0) -> Instance:
        self.engine.behave = lambda _: FakeProgram(answer=self.app.answer, listens_after=after)
        specs = [ContainerSpec(name, "hello:1") for name in containers or (APP,)]
        return await self.runtime.start(InstanceSpec(NAME, "default/hello", "uid", specs, PORT))

    def prober(self, instance: Instance, **probes: Probes) -> Prober:
        named = {name.replace("_", "-"): one for name, one in probes.items()}
        return Prober(self.checker, self.runtime, NAME, instance.address, named)


@pytest.fixture
async def stage() -> AsyncIterator[Stage]:
    engine = FakeEngine()
    async with FakeRuntime(engine) as runtime, Checker() as checker:
        yield Stage(engine, runtime, checker, App())
        await runtime.destroy()


async def next_change(prober: Prober) -> Change:
    async with asyncio.timeout(10):
        return await anext(prober.changes())


async def test_readiness_is_seen_when_the_app_listens(stage: Stage) -> None:
    one = await stage.start(after=0.05)
    async with asyncio.timeout(10):
        await until_ready(stage.checker, stage.runtime, NAME, one.address, {APP: Probes(readiness=EAGER)})
    assert stage.engine.server(NAME).in_flight == 0


async def test_an_app_that_never_listens_is_never_ready(stage: Stage) -> None:
    one = await stage.start(after=None)
    with pytest.raises(TimeoutError):
        async with asyncio.timeout(0.2):
            await until_ready(stage.checker, stage.runtime, NAME, one.address, {APP: Probes(readiness=EAGER)})


async def test_an_instance_without_probes_is_ready_at_once(stage: Stage) -> None:
    one = await stage.start(after=None)
    await until_ready(stage.checker, stage.runtime, NAME, one.address, {APP: Probes()})


async def test_an_app_that_turns_unhealthy_and_back_is_told(stage: Stage) -> None:
    one = await stage.start()
    readiness = Probe(HttpCheck(PORT, "/healthz"), **FAST)
    async with stage.prober(one, user_container=Probes(readiness=readiness)) as prober:
        assert await next_change(prober) == Ready()
        stage.app.status = 503
        match await next_change(prober):
            case Unready(container, message):
                assert (container, "statuscode: 503" in message) == (APP, True)
            case other:
                raise AssertionError(other)
        assert not prober.ready
        stage.app.status = 200
        assert await next_change(prober) == Ready()


async def test_an_app_that_is_not_alive_is_to_be_restarted_and_not_asked_meanwhile(stage: Stage) -> None:
    one = await stage.start()
    liveness = Probe(HttpCheck(PORT), **FAST)
    async with stage.prober(one, user_container=Probes(liveness=liveness)) as prober:
        assert await next_change(prober) == Ready()
        stage.app.status = 500
        wanted = await next_change(prober)
        assert isinstance(wanted, RestartWanted)
        assert wanted.message.startswith("liveness probe failed: HTTP probe failed with statuscode: 500")
        asked = stage.app.asked
        stage.app.status = 200
        await stage.runtime.restart(NAME, APP)
        assert stage.app.asked == asked
        prober.restarted(APP)
        assert isinstance(await next_change(prober), Unready)
        assert await next_change(prober) == Ready()
        await eventually(lambda: stage.app.asked > asked)


async def test_a_startup_probe_that_fails_too_often_ends_the_wait(stage: Stage) -> None:
    stage.app.status = 404
    one = await stage.start()
    startup = Probe(HttpCheck(PORT), **FAST)
    with pytest.raises(ProbeFailedError, match=r"user-container: startup probe failed: .*404"):
        async with asyncio.timeout(10):
            await until_ready(stage.checker, stage.runtime, NAME, one.address, {APP: Probes(startup=startup)})


async def test_liveness_waits_for_startup(stage: Stage) -> None:
    stage.app.status = 500
    one = await stage.start()
    startup = Probe(HttpCheck(PORT), failure_threshold=10_000, **FAST)
    liveness = Probe(HttpCheck(PORT), failure_threshold=1, **FAST)
    async with stage.prober(one, user_container=Probes(startup, EAGER, liveness)) as prober:
        await eventually(lambda: stage.app.asked > 5)
        assert not prober.ready
        stage.app.status = 200
        assert await next_change(prober) == Ready()
        stage.app.status = 500
        assert isinstance(await next_change(prober), RestartWanted)


async def test_every_container_must_be_ready(stage: Stage) -> None:
    one = await stage.start(APP, "sidecar")
    ready_when_asked = Probe(ExecCheck(["/check"]), **FAST)
    stage.engine.fail("exec", NotFoundError("the sidecar still boots"), times=20)
    probes = {"user_container": Probes(readiness=EAGER), "sidecar": Probes(readiness=ready_when_asked)}
    async with stage.prober(one, **probes) as prober:
        await eventually(lambda: "sidecar" in prober.last_failure)
        assert prober.last_failure == {"sidecar": "the sidecar still boots"}
        assert not prober.ready
        stage.engine.behave = lambda _: FakeProgram(exits_after=0.0, exit_code=0)
        assert await next_change(prober) == Ready()


async def test_a_paused_instance_is_not_asked_and_stays_what_it_was(stage: Stage) -> None:
    one = await stage.start()
    liveness = Probe(HttpCheck(PORT), failure_threshold=1, **FAST)
    async with stage.prober(one, user_container=Probes(liveness=liveness)) as prober:
        assert await next_change(prober) == Ready()
        await eventually(lambda: stage.app.asked > 3)
        prober.suspend()
        await stage.runtime.pause(NAME)
        await eventually(lambda: stage.engine.server(NAME).in_flight <= 1)
        stage.app.status = 500
        asked = stage.app.asked
        stage.app.status = 200
        await stage.runtime.resume(NAME)
        prober.resume()
        await eventually(lambda: stage.app.asked > asked + 3)
        assert prober.ready
