"""Following an instance of the fake runtime with probes, on real sockets."""

import asyncio
from collections.abc import AsyncIterator
from dataclasses import dataclass
from typing import Any

import pytest

from autoscaler.probes.checks import Checker
from autoscaler.probes.prober import (
    Failing,
    HealthChange,
    ProbeFailedError,
    Prober,
    Ready,
    RestartNeeded,
    Unready,
    until_ready,
)
from autoscaler.probes.spec import ExecCheck, HttpCheck, Probes, ProbeSpec, TcpCheck
from autoscaler.runtime.model import ContainerSpec, Instance, InstanceSpec
from knoll.values.errors import NotFoundError
from tests.doubles.fake_engine import FakeEngine, FakeProgram
from tests.doubles.fake_runtime import FakeRuntime
from tests.doubles.fake_server import FakeAnswer, FakeRequest
from tests.waiting import eventually

NAME, APP, PORT = "hello-1", "user-container", 8080
EAGER = ProbeSpec(TcpCheck(PORT), period_seconds=0, eager=True)
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
        named = {name.replace("_", "-"): probes_of for name, probes_of in probes.items()}
        return Prober(self.checker, self.runtime, NAME, instance.address, named)


@pytest.fixture
async def stage() -> AsyncIterator[Stage]:
    engine = FakeEngine()
    async with FakeRuntime(engine) as runtime, Checker() as checker:
        yield Stage(engine, runtime, checker, App())
        await runtime.destroy()


async def next_change(prober: Prober) -> HealthChange:
    """The next change of what the instance is; probes that fail on the way are left out."""
    async with asyncio.timeout(30):
        async for change in prober.changes():
            if not isinstance(change, Failing):
                return change
    raise AssertionError("changes never end")


async def failing(prober: Prober, start: str) -> Failing:
    async with asyncio.timeout(30):
        async for change in prober.changes():
            if isinstance(change, Failing) and change.message.startswith(start):
                return change
    raise AssertionError("changes never end")


async def test_readiness_is_seen_when_the_app_listens(stage: Stage) -> None:
    instance = await stage.start(after=0.05)
    async with asyncio.timeout(30):
        await until_ready(stage.checker, stage.runtime, NAME, instance.address, {APP: Probes(readiness=EAGER)})
    assert stage.engine.server(NAME).in_flight == 0


async def test_an_app_that_never_listens_is_never_ready(stage: Stage) -> None:
    instance = await stage.start(after=None)
    with pytest.raises(TimeoutError):
        async with asyncio.timeout(0.2):
            await until_ready(stage.checker, stage.runtime, NAME, instance.address, {APP: Probes(readiness=EAGER)})


async def test_an_instance_without_probes_is_ready_at_once(stage: Stage) -> None:
    instance = await stage.start(after=None)
    await until_ready(stage.checker, stage.runtime, NAME, instance.address, {APP: Probes()})


async def test_an_app_that_becomes_unhealthy_and_recovers_is_reported(stage: Stage) -> None:
    instance = await stage.start()
    readiness = ProbeSpec(HttpCheck(PORT, "/healthz"), **FAST)
    async with stage.prober(instance, user_container=Probes(readiness=readiness)) as prober:
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


async def test_an_app_that_is_not_alive_is_restarted_and_gets_no_requests(stage: Stage) -> None:
    instance = await stage.start()
    liveness = ProbeSpec(HttpCheck(PORT), **FAST)
    async with stage.prober(instance, user_container=Probes(liveness=liveness)) as prober:
        assert await next_change(prober) == Ready()
        stage.app.status = 500
        change = await next_change(prober)
        assert isinstance(change, RestartNeeded)
        assert change.message.startswith("Liveness probe failed: HTTP probe failed with statuscode: 500")
        prober.stopped(APP)
        assert isinstance(await next_change(prober), Unready)
        asked = stage.app.asked
        stage.app.status = 200
        await stage.runtime.restart_container(NAME, APP)
        assert stage.app.asked == asked
        prober.restarted(APP)
        assert await next_change(prober) == Ready()
        await eventually(lambda: stage.app.asked > asked)


async def test_a_startup_probe_that_fails_too_often_ends_the_wait(stage: Stage) -> None:
    stage.app.status = 404
    instance = await stage.start()
    startup = ProbeSpec(HttpCheck(PORT), **FAST)
    with pytest.raises(ProbeFailedError, match=r"user-container: Startup probe failed: .*404"):
        async with asyncio.timeout(30):
            await until_ready(stage.checker, stage.runtime, NAME, instance.address, {APP: Probes(startup=startup)})


async def test_liveness_waits_for_startup(stage: Stage) -> None:
    stage.app.status = 500
    instance = await stage.start()
    startup = ProbeSpec(HttpCheck(PORT), failure_threshold=10_000, **FAST)
    liveness = ProbeSpec(HttpCheck(PORT), failure_threshold=1, **FAST)
    async with stage.prober(instance, user_container=Probes(startup, EAGER, liveness)) as prober:
        await eventually(lambda: stage.app.asked > 5)
        assert not prober.ready
        stage.app.status = 200
        assert await next_change(prober) == Ready()
        stage.app.status = 500
        assert isinstance(await next_change(prober), RestartNeeded)


async def test_every_container_must_be_ready(stage: Stage) -> None:
    instance = await stage.start(APP, "sidecar")
    ready_when_asked = ProbeSpec(ExecCheck(["/check"]), **FAST)
    stage.engine.fail("exec", NotFoundError("the sidecar still boots"), times=20)
    probes = {"user_container": Probes(readiness=EAGER), "sidecar": Probes(readiness=ready_when_asked)}
    async with stage.prober(instance, **probes) as prober:
        assert await failing(prober, "Readiness") == Failing(
            "sidecar", "Readiness probe failed: the sidecar still boots", "readiness"
        )
        assert not prober.ready
        stage.engine.behave = lambda _: FakeProgram(exits_after=0.0, exit_code=0)
        assert await next_change(prober) == Ready()


async def test_what_cloud_run_exports_is_ready_when_its_program_listens(stage: Stage) -> None:
    instance = await stage.start(after=0.3)
    startup = ProbeSpec(
        TcpCheck(PORT), period_seconds=240, timeout_seconds=240, success_threshold=1, failure_threshold=1, eager=True
    )
    async with stage.prober(instance, user_container=Probes(startup=startup, readiness=EAGER)) as prober:
        assert await next_change(prober) == Ready()


@pytest.mark.parametrize("kind", ["startup", "readiness"])
async def test_early_failures_are_reported_once_and_a_later_one_when_it_differs(stage: Stage, kind: str) -> None:
    stage.app.status = 503
    instance = await stage.start()
    probe = ProbeSpec(HttpCheck(PORT, "/healthz"), period_seconds=240, failure_threshold=1, eager=True)
    async with stage.prober(instance, user_container=Probes(**{kind: probe})) as prober:
        first = await failing(prober, "")
        assert first.message == f"{kind.capitalize()} probe failed: HTTP probe failed with statuscode: 503"
        stage.app.status = 500
        second = await failing(prober, "")
        assert second.message == f"{kind.capitalize()} probe failed: HTTP probe failed with statuscode: 500"


async def test_a_refused_connection_is_reported_as_such(stage: Stage) -> None:
    instance = await stage.start(after=None)
    async with stage.prober(instance, user_container=Probes(readiness=EAGER)) as prober:
        change = await failing(prober, "Readiness")
    assert change.refused
    assert change.message == f"Readiness probe failed: dial tcp {instance.address}:{PORT}: connect: connection refused"


async def test_the_prober_remembers_a_success_since_the_start(stage: Stage) -> None:
    instance = await stage.start(APP, "sidecar")
    readiness = ProbeSpec(HttpCheck(PORT), **FAST)
    probes = {"user_container": Probes(readiness=readiness), "sidecar": Probes(liveness=EAGER)}
    stage.app.status = 503
    async with stage.prober(instance, **probes) as prober:
        await failing(prober, "")
        assert not prober.passed(APP)
        assert prober.passed("sidecar"), "it is ready without a probe: requests may be in it"
        stage.app.status = 200
        assert await next_change(prober) == Ready()
        assert prober.passed(APP)
        prober.restarted(APP)
        assert not prober.passed(APP)


async def test_the_other_containers_are_asked_while_one_is_started_again(stage: Stage) -> None:
    instance = await stage.start(APP, "sidecar")
    liveness = ProbeSpec(HttpCheck(PORT), **FAST)
    probes = {"user_container": Probes(liveness=liveness), "sidecar": Probes()}
    async with stage.prober(instance, **probes) as prober:
        assert await next_change(prober) == Ready()
        prober.stopped("sidecar")
        asked = stage.app.asked
        await eventually(lambda: stage.app.asked > asked + 3)
        assert not prober.ready
        prober.restarted("sidecar")
        assert isinstance(await next_change(prober), Unready)
        assert await next_change(prober) == Ready()
