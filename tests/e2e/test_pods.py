"""Instances as kubectl shows them: Pods come and go with them, their logs stream, deleting one replaces it."""

import json
import os
import subprocess
import threading
from collections.abc import Iterator
from typing import Any

import pytest

from tests.e2e.platform import Platform, http
from tests.waiting import eventually_sync

pytestmark = [pytest.mark.docker, pytest.mark.redis, pytest.mark.kubectl]

NAME = "seen"
REVISION = f"{NAME}-00001"
HOST = {"Host": f"{NAME}.default.localhost"}
MANIFEST = """
apiVersion: serving.knative.dev/v1
kind: Service
metadata: {name: seen, namespace: default}
spec:
  template:
    metadata:
      annotations: {autoscaling.knative.dev/window: 6s}
    spec:
      timeoutSeconds: 10
      containers:
        - image: IMAGE
          env: [{name: RESOURCE, value: seen}]
"""


@pytest.fixture(scope="module")
def service(platform: Platform, sample: str) -> Iterator[None]:
    platform.kubectl("apply", "-f", "-", stdin=MANIFEST.replace("IMAGE", sample))
    platform.kubectl("wait", "--for=condition=Ready", f"ksvc/{NAME}", "--timeout=60s")
    yield
    platform.kubectl("delete", "ksvc", NAME)
    eventually_sync(lambda: not pods(platform), within=30, condition="the Pods go with their Service")
    for kind in ("deployment", "endpointslice", "sks", "kpa"):
        eventually_sync(lambda kind=kind: not listed(platform, kind), within=30, condition=f"each {kind} goes")  # type: ignore[misc]


def listed(platform: Platform, kind: str) -> list[Any]:
    arguments = ("get", kind, "-l", f"serving.knative.dev/revision={REVISION}", "-o", "json")
    return list(json.loads(platform.kubectl(*arguments).stdout)["items"])


def pods(platform: Platform) -> list[Any]:
    return listed(platform, "pods")


def awake(platform: Platform) -> Any:
    """Wake the service; its one Pod that is ready."""
    with http(platform) as client:
        assert client.get("/", headers=HOST).status_code == 200
    arguments = (
        "wait",
        "--for=condition=Ready",
        "pod",
        "-l",
        f"serving.knative.dev/revision={REVISION}",
        "--timeout=60s",
    )
    eventually_sync(lambda: pods(platform), condition="a Pod")
    platform.kubectl(*arguments)
    return next(pod for pod in pods(platform) if "deletionTimestamp" not in pod["metadata"])


def asleep(platform: Platform) -> None:
    eventually_sync(lambda: not pods(platform), within=60, condition="no Pod at zero")


class Following:
    """A kubectl that follows something, and the lines it wrote."""

    def __init__(self, platform: Platform, *arguments: str) -> None:
        environment = {**os.environ, "HOME": str(platform.home), "KUBECONFIG": "/dev/null"}
        command = ["kubectl", "--server", platform.api, *arguments]
        self.process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env=environment)
        self.lines: list[str] = []
        self._reader = threading.Thread(target=lambda: self.lines.extend(self.process.stdout or ()), daemon=True)
        self._reader.start()

    def __enter__(self) -> "Following":
        return self

    def __exit__(self, *_: object) -> None:
        self.process.kill()
        self.process.wait()
        self._reader.join(30)
        assert self.process.stdout is not None
        self.process.stdout.close()

    def says(self, *arguments: str, within: float = 60) -> None:
        """Wait for lines that hold these words, in this order."""

        def is_printed() -> bool:
            lines = iter(list(self.lines))
            return all(any(word in line for line in lines) for word in arguments)

        eventually_sync(is_printed, within=within, condition=f"{arguments} in {self.lines}")


def test_a_watch_of_pods_shows_a_service_wake_and_sleep(platform: Platform, service: None) -> None:
    asleep(platform)
    with Following(platform, "get", "pods", "--watch", "-l", f"serving.knative.dev/revision={REVISION}") as watch:
        pod = awake(platform)
        watch.says("2/2     Running", "Terminating")
    asleep(platform)
    assert pod["metadata"]["name"].startswith(f"{REVISION}-deployment-")
    assert pod["metadata"]["ownerReferences"][0]["kind"] == "Revision"
    assert pod["metadata"]["annotations"]["kubectl.kubernetes.io/default-container"] == "user-container"
    assert pod["metadata"]["labels"]["serving.knative.dev/service"] == NAME
    assert pod["metadata"]["labels"]["app"] == REVISION
    assert pod["status"]["phase"] == "Running"


def test_the_objects_behind_a_revision_follow_its_scale(platform: Platform, service: None) -> None:
    pod = awake(platform)

    def shown() -> bool:
        (deployment,) = listed(platform, "deployments")
        assert deployment["metadata"]["name"] == f"{REVISION}-deployment"
        assert deployment["spec"]["replicas"] == deployment["status"]["readyReplicas"] == 1
        assert deployment["metadata"]["generation"] == deployment["status"]["observedGeneration"]
        slices = {
            endpoint_slice["metadata"]["name"]: endpoint_slice["endpoints"]
            for endpoint_slice in listed(platform, "endpointslices")
        }
        assert slices[f"{REVISION}-private"][0]["addresses"] == [pod["status"]["podIP"]]
        assert slices[REVISION][0]["addresses"] == ["127.0.0.1"]
        return True

    eventually_sync(shown, condition="a Deployment of one")
    (sks,) = listed(platform, "sks")
    assert sks["status"]["privateServiceName"] == f"{REVISION}-private"
    assert "1/1" in platform.kubectl("get", "deploy").stdout
    asleep(platform)

    def empty() -> bool:
        (deployment,), (scaler,) = listed(platform, "deployments"), listed(platform, "kpa")
        slices = {
            endpoint_slice["metadata"]["name"]: endpoint_slice["endpoints"]
            for endpoint_slice in listed(platform, "endpointslices")
        }
        assert deployment["spec"]["replicas"] == deployment["status"]["readyReplicas"] == 0
        assert slices[f"{REVISION}-private"] == []
        assert scaler["status"]["actualScale"] == 0
        return True

    eventually_sync(empty, condition="a Deployment of none")


def test_logs_show_what_the_container_writes(platform: Platform, service: None) -> None:
    name = awake(platform)["metadata"]["name"]
    assert "seen listens on" in platform.kubectl("logs", name).stdout
    assert "seen listens on" in platform.kubectl("logs", "-l", f"app={REVISION}", "-c", "user-container").stdout
    stamped = platform.kubectl("logs", name, "--timestamps").stdout
    assert stamped[:2] == "20"
    assert "Z " in stamped
    refused = platform.kubectl("logs", name, "-c", "unknown", check=False)
    assert refused.returncode
    assert "container unknown is not valid" in refused.stderr


def log_requests(platform: Platform, switch: str) -> None:
    patch = json.dumps({"data": {"logging.enable-request-log": switch}})
    platform.kubectl("patch", "cm", "config-observability", "-n", "knative-serving", "--type=merge", "-p", patch)


def test_the_requests_to_an_instance_are_the_log_of_its_queue_proxy(platform: Platform, service: None) -> None:
    name = awake(platform)["metadata"]["name"]
    arguments = ("logs", name, "-c", "queue-proxy")
    assert platform.kubectl(*arguments).stdout == ""
    log_requests(platform, "true")
    try:

        def logged() -> list[str]:
            with http(platform) as client:
                assert client.get("/seen?by=the-log", headers=HOST).status_code < 500
            return platform.kubectl(*arguments, "--tail=1").stdout.splitlines()

        (line,) = eventually_sync(logged, condition="a line")
        assert (json.loads(line)["path"], json.loads(line)["instance"]) == ("/seen?by=the-log", name)
        with Following(platform, *arguments, "--follow", "--tail=1") as log, http(platform) as client:
            log.says("by=the-log")
            client.get("/seen?by=a-follower", headers=HOST)
            log.says("by=the-log", "by=a-follower")
        assert '"path"' not in platform.kubectl("logs", name).stdout, "another container's log"
    finally:
        log_requests(platform, "false")


def test_followed_logs_go_on_until_the_instance_ends(platform: Platform, service: None) -> None:
    name = awake(platform)["metadata"]["name"]
    with Following(platform, "logs", "--follow", name) as log:
        log.says("seen listens on")
        assert log.process.poll() is None
        platform.kubectl("delete", "pod", name, "--wait=false")
        log.says("seen listens on", "stopping: requests in flight may finish")
        assert log.process.wait(60) == 0
    eventually_sync(lambda: name not in {pod["metadata"]["name"] for pod in pods(platform)}, within=60)


def test_a_deleted_pod_is_drained_and_replaced(platform: Platform, service: None) -> None:
    name = awake(platform)["metadata"]["name"]
    with Following(platform, "get", "pods", "--watch", "-l", f"serving.knative.dev/revision={REVISION}") as watch:
        watch.says(name)
        with http(platform) as client:
            assert f'pod "{name}" deleted' in platform.kubectl("delete", "pod", name).stdout
            assert client.get("/", headers=HOST).status_code == 200
        watch.says(name, "Terminating")
    gone = platform.kubectl("get", "pod", name, check=False)
    assert gone.returncode
    assert "NotFound" in gone.stderr
    assert awake(platform)["metadata"]["name"] != name
