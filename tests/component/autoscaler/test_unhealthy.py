"""Instances that start and do not become ready, or stop being so: what is done, and what users see of it."""

import itertools
from collections.abc import Callable
from typing import Any

import aiohttp
import pytest

from autoscaler.probes.checks import connect
from knoll.messages.instances import ContainerRow, InstanceEvent, InstanceRow
from knoll.messages.scale import StartFailure
from knoll.values import kinds
from tests.component.autoscaler.conftest import AutoscalerHarness
from tests.doubles.fake_engine import FakeProgram
from tests.doubles.fake_server import FakeAnswer, FakeRequest
from tests.waiting import eventually

GET = {"httpGet": {"port": 0, "path": "/healthz"}}
CLOUD_RUN = {
    "tcpSocket": {"port": 8080}, "periodSeconds": 240, "timeoutSeconds": 240, "failureThreshold": 1,
}  # fmt: skip
"""The startup probe of every file that Cloud Run exports."""


def spec(**container: Any) -> dict[str, Any]:
    probe = {"successThreshold": 1, "tcpSocket": {"port": 0}}
    return {"containers": [{"name": "user-container", "image": "app", "readinessProbe": probe, **container}]}


class App:
    """A program that answers with a status."""

    def __init__(self, status: int = 200, **more: Any) -> None:
        self.status, self._more = status, more

    def __call__(self, _: object) -> FakeProgram:
        return FakeProgram(answer=self.answer, **self._more)

    async def answer(self, _: FakeRequest) -> FakeAnswer:
        return FakeAnswer(status=self.status)


async def row_of(harness: AutoscalerHarness, key: str) -> InstanceRow:
    _, entries = await harness.instances.snapshot()
    assert key in entries
    (row,) = entries[key][1].instances
    return row


async def shown(
    harness: AutoscalerHarness, key: str, holds: Callable[[InstanceRow, ContainerRow], bool], condition: str
) -> InstanceRow:
    """Wait until users are shown this of the only instance."""

    async def is_shown() -> InstanceRow:
        row = await row_of(harness, key)
        assert holds(row, row.containers[0]), row
        return row

    return await eventually(is_shown, condition=condition)


async def failure_of(harness: AutoscalerHarness, key: str, reason: str) -> StartFailure:
    async def is_reported() -> StartFailure:
        status = await harness.status(key)
        assert status is not None
        assert status.failure is not None
        assert status.failure.reason == reason, status.failure
        return status.failure

    return await eventually(is_reported, condition=f"failure {reason}")


def events(row: InstanceRow, reason: str) -> list[InstanceEvent]:
    return [event for event in row.events if event.reason == reason]


@pytest.mark.parametrize("threshold", [1, 3])
async def test_what_cloud_run_exports_becomes_ready_with_its_program(
    harness: AutoscalerHarness, threshold: int
) -> None:
    harness.engine.behave = lambda _: FakeProgram(listens_after=0.5)
    await harness.start()
    key = await harness.apply(spec=spec(startupProbe={**CLOUD_RUN, "failureThreshold": threshold}))
    await harness.ready(key)
    row = await shown(harness, key, lambda row, _: row.stage == "ready", "a ready instance")
    assert (row.containers[0].restarts, events(row, "Killing")) == (0, [])


async def test_a_failed_readiness_probe_is_reported_at_once_and_may_still_pass(harness: AutoscalerHarness) -> None:
    app = harness.engine.behave = App(503)
    await harness.start()
    key = await harness.apply(spec=spec(readinessProbe={"successThreshold": 1, **GET}))
    failure = await failure_of(harness, key, "Unhealthy")
    message = "Readiness probe failed: HTTP probe failed with statuscode: 503"
    assert failure == StartFailure("ContainerHealthy", "Unhealthy", message, final=False)
    row = await shown(harness, key, lambda row, _: bool(row.events), "an Event")
    assert row.events == (InstanceEvent("Warning", "Unhealthy", message),)
    app.status = 200
    await harness.ready(key)
    await harness.has_status(key, failure=None)


async def test_the_progress_deadline_reports_the_failed_probe(harness: AutoscalerHarness) -> None:
    harness.engine.behave = App(503)
    await harness.start()
    annotations = {"serving.knative.dev/progress-deadline": "2s"}
    key = await harness.apply(spec=spec(readinessProbe={"successThreshold": 1, **GET}), annotations=annotations)
    failure = await failure_of(harness, key, "ProgressDeadlineExceeded")
    assert failure == StartFailure(
        "ResourcesAvailable",
        "ProgressDeadlineExceeded",
        "Initial scale was never achieved: no instance became ready within 2 s: "
        "Readiness probe failed: HTTP probe failed with statuscode: 503",
    )
    await harness.gone()


async def test_a_container_that_got_sigterm_runs_until_it_ends(harness: AutoscalerHarness) -> None:
    """Its liveness probe fails: `Killing`, and no word of a crash loop while its grace runs."""
    app = harness.engine.behave = App(ignores_term=True)
    await harness.start()
    liveness = {**GET, "periodSeconds": 1, "failureThreshold": 1}
    key = await harness.apply(spec=spec(livenessProbe=liveness) | {"timeoutSeconds": 600})
    (endpoint,) = await harness.ready(key)
    app.status = 500
    row = await shown(harness, key, lambda row, _: bool(events(row, "Killing")), "Killing")
    (killing,) = events(row, "Killing")
    message = "Container user-container failed liveness probe, will be restarted"
    assert (killing.type, killing.message) == ("Normal", message)
    row = await shown(harness, key, lambda row, _: row.stage == "unready", "an instance that is not ready")
    assert (row.containers[0].running, row.containers[0].ready, row.containers[0].reason) == (True, False, "")
    assert harness.engine.graces[f"{endpoint.id}/user-container"] == 600, "it had answered: requests may be in it"
    assert events(row, "Unhealthy")[0].message == ("Liveness probe failed: HTTP probe failed with statuscode: 500")


async def test_what_never_answered_a_probe_is_killed_without_its_grace(harness: AutoscalerHarness) -> None:
    harness.engine.behave = lambda _: FakeProgram(listens_after=None, ignores_term=True)
    await harness.start()
    startup = {"tcpSocket": {"port": 0}, "periodSeconds": 1, "failureThreshold": 1}
    key = await harness.apply(spec=spec(startupProbe=startup))
    row = await shown(harness, key, lambda _, container: container.restarts == 1, "the restart")
    assert harness.engine.graces[f"{row.name}/user-container"] <= 2
    assert row.containers[0].last is not None
    assert (row.containers[0].last.exit_code, row.containers[0].last.reason) == (137, "Error")
    (killing,) = events(row, "Killing")
    assert killing.message == "Container user-container failed startup probe, will be restarted"
    assert (await failure_of(harness, key, "Unhealthy")).message.startswith("Startup probe failed: dial tcp ")


async def test_a_container_that_keeps_ending_is_restarted_with_back_off_and_reported(
    harness: AutoscalerHarness,
) -> None:
    await harness.start()
    key = await harness.apply()
    (endpoint,) = await harness.ready(key)
    harness.engine.kill(endpoint.id, exit_code=3)
    await shown(harness, key, lambda row, each: row.stage == "ready" and each.restarts == 1, "it runs again")
    harness.engine.kill(endpoint.id, exit_code=3)
    row = await shown(harness, key, lambda _, each: each.reason == "CrashLoopBackOff", "the back-off")
    (container,) = row.containers
    assert not container.running
    assert container.message == f"back-off 10s restarting failed container=user-container pod={endpoint.id}_default"
    (back_off,) = events(row, "BackOff")
    assert back_off.message == (f"Back-off restarting failed container user-container in pod {endpoint.id}_default")


async def test_a_container_that_is_out_of_memory_at_its_start_is_reported_as_such(harness: AutoscalerHarness) -> None:
    harness.engine.behave = lambda _: FakeProgram(listens_after=None, exits_after=0.01, oom=True)
    await harness.start()
    key = await harness.apply()
    failure = await failure_of(harness, key, "OOMKilled")
    assert failure.condition == "ContainerHealthy"
    row = await shown(harness, key, lambda _, container: container.last is not None, "how it ended")
    assert row.containers[0].last is not None
    assert row.containers[0].last.reason == "OOMKilled"


async def test_each_instance_that_becomes_ready_restarts_the_progress_deadline(harness: AutoscalerHarness) -> None:
    delays = iter([0.0, 0.8, 1.6])
    harness.engine.behave = lambda _: FakeProgram(listens_after=next(delays))
    await harness.start()
    annotations = {"serving.knative.dev/progress-deadline": "1s", "autoscaling.knative.dev/min-scale": "3"}
    key = await harness.apply(annotations=annotations)
    await harness.ready(key, 3)
    assert (await harness.has_status(key, initial_reached=True)).failure is None


async def test_what_is_ready_is_not_ended_by_the_progress_deadline(harness: AutoscalerHarness) -> None:
    count = itertools.count()
    harness.engine.behave = lambda _: FakeProgram(listens_after=None if next(count) else 0.0)
    await harness.start()
    annotations = {"serving.knative.dev/progress-deadline": "1s", "autoscaling.knative.dev/min-scale": "2"}
    key = await harness.apply(annotations=annotations)
    failure = await failure_of(harness, key, "ProgressDeadlineExceeded")
    assert failure.final
    assert failure.message.startswith(
        "Initial scale was never achieved: 1 of 2 instances became ready, and no other within 1 s"
    )
    await harness.ready(key)
    status = await harness.has_status(key, actual=1, desired=2)
    assert not status.initial_reached
    late = next(
        instance
        for instance in harness.engine.instances.values()
        if instance.containers["user-container"].server is None
    )
    harness.engine.kill(late.spec.name)  # its next run listens
    harness.engine.behave = lambda _: FakeProgram()
    await harness.ready(key, 2)
    await harness.has_status(key, initial_reached=True, failure=None, active="True")


async def test_a_program_that_listens_on_loopback_is_served_and_the_next_one_sooner(harness: AutoscalerHarness) -> None:
    harness.engine.behave = lambda _: FakeProgram(loopback=True)
    await harness.start()
    key = await harness.apply()
    (endpoint,) = await harness.ready(key)
    async with aiohttp.ClientSession() as client, client.get(f"http://{endpoint.host}:{endpoint.port}/") as answer:
        assert (await answer.text()).strip() == endpoint.id
    assert harness.autoscaler is not None
    assert harness.autoscaler.deps.loopback_revisions == {"uid-hello-00001"}
    # A forwarder that outlived the program would be taken for it.
    harness.engine.behave = lambda _: FakeProgram(listens_after=None)
    harness.engine.kill(endpoint.id)
    await shown(harness, key, lambda row, each: row.stage == "unready" and each.restarts == 1, "it runs again")
    assert not await reached(endpoint.host, endpoint.port)
    harness.engine.behave = lambda _: FakeProgram(loopback=True)
    harness.engine.kill(endpoint.id)
    await harness.store.delete(kinds.REVISION.id, "default", "hello-00001")
    await harness.gone()
    await eventually(
        lambda: not harness.autoscaler or not harness.autoscaler.deps.loopback_revisions, condition="it is forgotten"
    )


async def reached(host: str, port: int) -> bool:
    try:
        await connect(host, port)
    except ConnectionRefusedError:
        return False
    return True


async def test_a_program_on_another_port_is_reported_with_a_hint(harness: AutoscalerHarness) -> None:
    harness.engine.behave = lambda _: FakeProgram(port=3000)
    await harness.start()
    key = await harness.apply()
    failure = await failure_of(harness, key, "Unhealthy")
    hint = "nothing listens on 8080; the container listens on 3000; set ports[0].containerPort or read $PORT"

    async def is_reported() -> bool:
        status = await harness.status(key)
        assert status is not None
        assert status.failure is not None
        assert status.failure.message.startswith(f"{hint} (Readiness probe failed: dial tcp "), status.failure
        return not status.failure.final

    await eventually(is_reported, condition="the hint")
    assert not failure.final
    await shown(harness, key, lambda row, _: hint in [event.message for event in row.events], "an Event")


async def test_a_successful_exec_probe_does_not_hide_an_unreachable_port(harness: AutoscalerHarness) -> None:
    harness.engine.behave = lambda spec: FakeProgram(
        loopback=True, exits_after=0.0 if spec.args == ("check",) else None
    )
    await harness.start()
    readiness = {"successThreshold": 1, "exec": {"command": ["true", "check"]}}
    key = await harness.apply(spec=spec(readinessProbe=readiness))
    (endpoint,) = await harness.ready(key)
    await eventually(lambda: reached(endpoint.host, endpoint.port), condition="the port is reached")


async def test_an_init_container_that_does_not_end_is_reported(harness: AutoscalerHarness) -> None:
    harness.engine.behave = lambda container: FakeProgram(exits_after=8.0 if container.name == "migrate" else None)
    await harness.start()
    init = {"name": "migrate", "image": "app"}
    key = await harness.apply(spec=spec() | {"initContainers": [init]})
    failure = await failure_of(harness, key, "PodInitializing")
    assert failure.message.startswith("containers with incomplete status: [migrate]")
    assert not failure.final
    row = await shown(harness, key, lambda _, container: container.reason == "PodInitializing", "the Pod")
    assert row.events == ()
    await harness.ready(key)
    await harness.has_status(key, failure=None)


@pytest.mark.parametrize("kind", ["init", "refused", "image"])
async def test_what_keeps_a_container_from_starting_is_an_event(harness: AutoscalerHarness, kind: str) -> None:
    refused = 'exec: "/app": permission denied'
    harness.engine.behave = lambda container: (
        FakeProgram(exits_after=0.0, exit_code=4, output=b"no schema")
        if container.name == "migrate"
        else FakeProgram(refusal=refused if kind == "refused" else "")
    )
    if kind == "image":
        harness.engine.images = set()
    await harness.start()
    more = {"initContainers": [{"name": "migrate", "image": "app"}]} if kind == "init" else {}
    key = await harness.apply(spec=spec() | more)
    row = await shown(harness, key, lambda row, _: bool(row.events), "an Event")
    message = {"init": "ended with exit code 4: no schema", "refused": refused, "image": "cannot be pulled"}[kind]
    assert (row.events[0].type, row.events[0].reason) == ("Warning", "Failed")
    assert row.events[0].message.startswith("Error: ")
    assert message in row.events[0].message
    status = await harness.status(key)
    assert status is not None
    assert status.failure is not None
    assert message in status.failure.message


async def test_probes_are_logged_when_the_configuration_enables_it(
    harness: AutoscalerHarness, capsys: pytest.CaptureFixture[str]
) -> None:
    await harness.start()
    key = await harness.apply()
    await harness.ready(key)
    assert " probe " not in capsys.readouterr().out
    maps = {"metadata": {"name": "config-observability", "namespace": "knative-serving"}}
    data = {"logging.enable-probe-request-log": "true"}
    await harness.store.create(kinds.CONFIG_MAP.id, {**maps, "data": data})
    assert harness.autoscaler is not None
    checker = harness.autoscaler.deps.checker
    await eventually(lambda: checker.logs, condition="the configuration is followed")
    await harness.ready(await harness.apply("other-00001"))
    lines = [line for line in capsys.readouterr().out.splitlines() if " probe " in line]
    assert any("kind=tcp" in line and "ok=True" in line for line in lines)


async def test_a_crash_loop_is_reported_even_while_the_container_serves(
    harness: AutoscalerHarness, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("autoscaler.instances.restart_backoff.RESTART_PAUSES", (0.0,) * 7)
    monkeypatch.setattr("autoscaler.instances.instance.RECOVERED_SECONDS", 1.0)
    harness.engine.behave = lambda _: FakeProgram(output=b"no module named app\n")
    await harness.start()
    key = await harness.apply()
    (endpoint,) = await harness.ready(key)
    for restarts in (1, 2):
        harness.engine.kill(endpoint.id, exit_code=3)
        await shown(harness, key, runs_after(restarts), f"restart {restarts}")
    await harness.has_status(key, actual=1, failure=None)
    harness.engine.kill(endpoint.id, exit_code=3)
    await shown(harness, key, runs_after(3), "restart 3")
    message = "Container failed with: no module named app"
    await harness.has_status(key, actual=1, failure=StartFailure("ContainerHealthy", "ExitCode3", message))
    await harness.has_status(key, actual=1, failure=None)  # after it was steady for a while


def runs_after(restarts: int) -> Callable[[InstanceRow, ContainerRow], bool]:
    return lambda row, container: row.stage == "ready" and container.restarts == restarts
