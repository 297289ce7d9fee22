"""The runtime contract about the end: out of memory, restarts, SIGTERM and grace, websockets."""

import socket
import subprocess
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from typing import Any

import httpx
import pytest
from websockets.exceptions import ConnectionClosed
from websockets.sync.client import ClientConnection, connect

from tests.e2e.conformance.conftest import Namespace, service
from tests.e2e.platform import http
from tests.waiting import eventually_sync

pytestmark = [pytest.mark.docker, pytest.mark.redis, pytest.mark.kubectl]

SMALL = {"limits": {"memory": "64Mi"}}
ONE = {"autoscaling.knative.dev/max-scale": "1"}
# A slow answer is no failed probe on a busy machine.
LIVENESS = {"httpGet": {"path": "/alive"}, "periodSeconds": 1, "timeoutSeconds": 30, "failureThreshold": 1}
SERVICES = [
    service("hungry", annotations=ONE, resources=SMALL),
    service("fragile", annotations=ONE),
    service("polite", spec={"timeoutSeconds": 20}),
    service("stubborn", spec={"timeoutSeconds": 2}, env=[{"name": "STUBBORN", "value": "yes"}]),
    service("talks", spec={"timeoutSeconds": 20}),
    service("rude", spec={"timeoutSeconds": 60}, env=[{"name": "RUDE", "value": "yes"}]),
    service("leaves", spec={"timeoutSeconds": 60}),
    service("sickly", annotations=ONE, livenessProbe=LIVENESS),
]


@pytest.fixture(scope="module")
def here(make_namespace: Callable[[str], AbstractContextManager[Namespace]]) -> Iterator[Namespace]:
    """All Services of this module, deployed at once."""
    with make_namespace("runtime-life") as namespace:
        namespace.apply(*SERVICES)
        yield namespace


def status(here: Namespace, name: str) -> Any:
    (status,) = (
        status for status in here.pod(name)["status"]["containerStatuses"] if status["name"] == "user-container"
    )
    return status


def serves(here: Namespace, name: str) -> bool:
    return here.ask(name).status_code == 200


@pytest.mark.parametrize(
    ("name", "path", "reason", "code"),
    [("hungry", "/bloat?mb=200", "OOMKilled", 137), ("fragile", "/exit", "Error", 3)],
    ids=["out of memory", "exit"],
)
def test_a_container_that_dies_in_a_request_gives_502_and_is_restarted_in_place(
    here: Namespace, name: str, path: str, reason: str, code: int
) -> None:
    before = here.pod(name)["metadata"]["name"]
    assert here.ask(name, path).status_code == 502
    eventually_sync(lambda: status(here, name)["restartCount"] == 1, within=30, condition="the restart is counted")
    ended = status(here, name)["lastState"]["terminated"]
    assert (ended["reason"], ended["exitCode"]) == (reason, code)
    eventually_sync(lambda: serves(here, name), within=30, condition="it serves again")
    assert here.pod(name)["metadata"]["name"] == before


def test_a_draining_instance_ends_its_requests_and_gets_no_new_ones(here: Namespace) -> None:
    pod = here.pod("polite")["metadata"]["name"]
    with http(here.platform) as client, log_of(here, pod) as log:
        host = {"Host": here.host("polite")}
        with client.stream("GET", "/slow", params={"seconds": "4"}, headers=host) as answer:
            lines = answer.iter_lines()
            assert next(lines) == "began"
            here.kubectl("delete", "pod", pod, "--wait=false")
            eventually_sync(lambda: other(here, "polite", pod), within=30, condition="others answer new requests")
            assert next(lines) == "ended"
        output, _ = log.communicate(timeout=60)
    assert output.splitlines()[-1] == "SIGTERM with 0 requests"


def log_of(here: Namespace, pod: str) -> "subprocess.Popen[str]":
    command = ["kubectl", "--server", here.platform.api, "-n", here.name, "logs", "-f", pod]
    environment = {"PATH": "/usr/bin:/bin:/usr/local/bin", "HOME": str(here.platform.home), "KUBECONFIG": "/dev/null"}
    return subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env=environment)


def other(here: Namespace, name: str, pod: str) -> bool:
    return bool(here.report(name)["env"]["HOSTNAME"] != pod)


def test_a_container_that_ignores_sigterm_is_killed_after_timeout_seconds(here: Namespace) -> None:
    pod = here.pod("stubborn")["metadata"]["name"]
    here.kubectl("delete", "pod", pod, "--wait=false")
    gone = lambda: here.kubectl("get", "pod", pod, check=False).returncode != 0  # noqa: E731
    eventually_sync(gone, within=60, condition="it is gone long before the default of 300 s")


def websocket(here: Namespace, name: str) -> ClientConnection:
    gateway = httpx.URL(here.platform.gateway)
    raw = socket.create_connection((gateway.host, gateway.port))
    return connect(f"ws://{here.host(name)}/websocket", sock=raw, proxy=None, ping_interval=None, close_timeout=20)


def code_of(connection: ClientConnection) -> int | None:
    """Wait for the end; the code in the peer's close frame."""
    with pytest.raises(ConnectionClosed) as ended:
        connection.recv(timeout=60)
    return ended.value.rcvd.code if ended.value.rcvd else None


def test_close_frames_of_websockets_pass_in_both_directions(here: Namespace) -> None:
    with websocket(here, "talks") as connection:
        connection.send("hello")
        assert connection.recv(timeout=30) == "hello"
        connection.send("close")
        assert code_of(connection) == 4001
    with websocket(here, "talks") as connection:
        connection.close(4002)
        assert connection.close_code == 4002, "the app's answer"


def test_the_close_frame_of_an_app_that_gets_sigterm_passes(here: Namespace) -> None:
    with websocket(here, "sickly") as connection:
        connection.send("hello")
        assert connection.recv(timeout=30) == "hello"
        assert here.ask("sickly", "/sicken").status_code == 200  # liveness ends it
        assert code_of(connection) == 1001


@pytest.mark.parametrize("name", ["leaves", "rude"], ids=["by the app", "by the activator where the app does not"])
def test_websockets_of_a_removed_instance_are_closed_with_1001(here: Namespace, name: str) -> None:
    pod = here.pod(name)["metadata"]["name"]
    with websocket(here, name) as connection, log_of(here, pod) as log:
        connection.send("hello")
        assert connection.recv(timeout=30) == "hello"
        here.kubectl("delete", "pod", pod, "--wait=false")
        eventually_sync(lambda: other(here, name, pod), within=30, condition="others answer new requests")
        assert code_of(connection) == 1001
        output, _ = log.communicate(timeout=60)
    assert output.splitlines()[-1] == "SIGTERM with 1 requests", "while it was open"
