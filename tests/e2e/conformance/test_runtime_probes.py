"""The runtime contract's probes: readiness before and after the start, startup and liveness."""

import datetime
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from typing import Any

import httpx
import pytest

from tests.e2e.conformance.conftest import READINESS_IMAGE, Namespace, service
from tests.waiting import eventually_sync

pytestmark = [pytest.mark.docker, pytest.mark.redis, pytest.mark.kubectl]

DELAY_SECONDS = 5
HTTP: dict[str, Any] = {"httpGet": {"path": "/healthz"}}
KINDS: dict[str, dict[str, Any]] = {
    "http": HTTP,
    "tcp": {"tcpSocket": {}},
    "exec": {"exec": {"command": ["/program", "probe"]}},
}
STARTING = [f"{kind}-{period}" for kind in KINDS for period in (0, 1)]
# A slow answer is no failed probe on a busy machine.
LIVENESS = {**HTTP, "periodSeconds": 1, "timeoutSeconds": 30, "failureThreshold": 2}


def starting(name: str) -> dict[str, Any]:
    """A Service that is ready some seconds after its start, by the probe that its name says."""
    kind, _, period = name.partition("-")
    env = [{"name": "READY_AFTER", "value": str(DELAY_SECONDS)}]
    if kind == "tcp":
        env.append({"name": "LISTEN_LATE", "value": "1"})
    return service(name, READINESS_IMAGE, env=env, readinessProbe={**KINDS[kind], "periodSeconds": int(period)})


def failing(name: str) -> dict[str, Any]:
    """One instance at most: no other can answer when it turns unready."""
    period = int(name.partition("-")[2])
    single_instance = {"autoscaling.knative.dev/max-scale": "1"}
    return service(name, READINESS_IMAGE, single_instance, readinessProbe={**HTTP, "periodSeconds": period})


@pytest.fixture(scope="module")
def here(make_namespace: Callable[[str], AbstractContextManager[Namespace]]) -> Iterator[Namespace]:
    """All Services of this module, deployed at once."""
    slow = [{"name": "READY_AFTER", "value": str(DELAY_SECONDS)}]
    with make_namespace("runtime-probes") as namespace:
        namespace.apply(
            *map(starting, STARTING),
            *map(failing, ("later-0", "later-1")),
            service("alive", READINESS_IMAGE, {"autoscaling.knative.dev/max-scale": "1"}, livenessProbe=LIVENESS),
            # Without the startup probe the liveness probe would have ended it before it could be ready.
            service("slow", READINESS_IMAGE, env=slow, livenessProbe=LIVENESS,
                    startupProbe={**HTTP, "periodSeconds": 1, "failureThreshold": 60}),
        )  # fmt: skip
        yield namespace


def since(here: Namespace, name: str, condition: str) -> float:
    """When a Revision's condition became true; epoch seconds."""
    (revision,) = here.listed("revision", "-l", f"serving.knative.dev/service={name}")
    (revision_condition,) = (row for row in revision["status"]["conditions"] if row["type"] == condition)
    assert revision_condition["status"] == "True"
    return datetime.datetime.fromisoformat(revision_condition["lastTransitionTime"]).timestamp()


def restarts(here: Namespace, name: str) -> int:
    (status,) = (
        status for status in here.pod(name)["status"]["containerStatuses"] if status["name"] == "user-container"
    )  # fmt: skip
    return int(status["restartCount"])


@pytest.mark.parametrize("name", STARTING)
def test_a_revision_is_ready_only_after_its_readiness_probe_succeeded(here: Namespace, name: str) -> None:
    """TestProbeRuntime."""
    app = here.report(name)
    assert since(here, name, "Ready") >= int(app["readyAt"])  # conditions tell whole seconds
    assert app["readyAt"] - app["started"] >= DELAY_SECONDS - 0.1
    assert restarts(here, name) == 0


@pytest.mark.parametrize("name", ["later-0", "later-1"])
def test_an_instance_that_turns_unready_later_gets_no_requests(here: Namespace, name: str) -> None:
    """TestProbeRuntimeAfterStartup. Its requests wait or get 503; once it is ready again they are answered."""
    assert here.ask(name).status_code == 200
    pod = here.pod(name)
    assert here.ask(name, "/fail").status_code == 200

    def refused() -> bool:
        try:
            return here.ask(name, timeout=5).status_code == 503
        except httpx.ReadTimeout:
            return True

    eventually_sync(refused, within=60, condition="requests do not reach the unready instance")
    assert here.pod(name)["metadata"]["name"] == pod["metadata"]["name"]
    mend(here, name)
    eventually_sync(lambda: here.ask(name, timeout=5).status_code == 200, within=30, condition="it is ready again")


def mend(here: Namespace, name: str) -> None:
    """Past the gateway, which sends it nothing now."""
    address = here.pod(name)["status"]["podIP"]
    assert httpx.get(f"http://{address}:8080/mend").status_code == 200


def test_an_app_that_fails_its_liveness_probe_is_restarted_in_place(here: Namespace) -> None:
    """TestLivenessWithFail."""
    eventually_sync(lambda: here.report("alive")["hits"] >= 5, within=30, condition="probes are answered")
    assert restarts(here, "alive") == 0
    before = here.pod("alive")["metadata"]["name"]
    assert here.ask("alive", "/fail").status_code == 200
    eventually_sync(lambda: restarts(here, "alive") > 0, within=60, condition="the container is restarted")

    def again() -> bool:
        answer = here.ask("alive")
        return answer.status_code == 200 and answer.json()["hits"] >= 5

    eventually_sync(again, within=60, condition="the restarted app is probed and answers")
    assert here.pod("alive")["metadata"]["name"] == before


def test_liveness_waits_until_the_startup_probe_succeeded(here: Namespace) -> None:
    app = here.report("slow")
    assert since(here, "slow", "Ready") >= int(app["readyAt"])
    eventually_sync(lambda: here.report("slow")["hits"] >= 3, within=30, condition="liveness probes come")
    assert restarts(here, "slow") == 0
    assert app["userAgent"].startswith("kube-probe/")


def test_probes_do_not_count_as_load(here: Namespace) -> None:
    """An instance that is probed each second and gets no requests is scaled to zero."""
    idle = {"autoscaling.knative.dev/min-scale": "0", "autoscaling.knative.dev/window": "6s"}
    here.apply(service("idle", READINESS_IMAGE, idle, readinessProbe={**HTTP, "periodSeconds": 1}))
    label = ("-l", "serving.knative.dev/service=idle")
    eventually_sync(lambda: not here.listed("pods", *label), within=60, condition="it goes to zero")
