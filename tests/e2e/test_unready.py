"""Instances that do not come up, each with its reason within seconds, and public manifests that must work unchanged."""

import json
import subprocess
import sys
from collections.abc import Callable, Iterator
from functools import partial
from typing import Any

import httpx
import pytest
import yaml

from tests.e2e.platform import Platform
from tests.waiting import eventually_sync

pytestmark = [pytest.mark.docker, pytest.mark.redis, pytest.mark.kubectl]

PYTHON = "python:3.13-slim"
SECONDS = 20.0
"""For a reason to be shown; on an idle machine it takes two."""
SERVER = """
import http.server, sys, time
time.sleep(float(sys.argv[3]))
class Handler(http.server.BaseHTTPRequestHandler):
    def do_GET(self):
        self.send_response(int(sys.argv[4]) if self.path == "/healthz" else 200)
        self.end_headers()
        self.wfile.write(b"it works\\n")
    def log_message(self, *_):
        pass
http.server.ThreadingHTTPServer((sys.argv[1], int(sys.argv[2])), Handler).serve_forever()
"""
CLOUD_RUN = """
apiVersion: serving.knative.dev/v1
kind: Service
metadata:
  name: exported
  annotations:
    run.googleapis.com/ingress: all
    run.googleapis.com/ingress-status: all
    run.googleapis.com/operation-id: 6d3f1c1e-8a53-4b4f-9d55-0f3f4d1c2b3a
  labels:
    cloud.googleapis.com/location: europe-west1
spec:
  template:
    metadata:
      labels:
        run.googleapis.com/startupProbeType: Default
      annotations:
        autoscaling.knative.dev/maxScale: '100'
        run.googleapis.com/client-name: gcloud
        run.googleapis.com/startup-cpu-boost: 'true'
    spec:
      containerConcurrency: 80
      timeoutSeconds: 300
      containers:
      - image: IMAGE
        ports:
        - name: http1
          containerPort: 8080
        startupProbe:
          timeoutSeconds: 240
          periodSeconds: 240
          failureThreshold: 1
          tcpSocket:
            port: 8080
  traffic:
  - percent: 100
    latestRevision: true
"""


def serve(address: str = "0.0.0.0", port: int = 8080, after: float = 0, health: int = 200) -> dict[str, Any]:
    return {"command": ["python", "-c", SERVER, address, str(port), str(after), str(health)]}


@pytest.fixture(scope="module")
def init_containers(platform: Platform) -> Iterator[None]:
    """Init containers are allowed."""

    def allow(value: str | None) -> None:
        patch = json.dumps({"data": {"kubernetes.podspec-init-containers": value}})
        platform.kubectl("patch", "configmap", "config-features", "-n", "knative-serving", "--type=merge", "-p", patch)

    allow("enabled")
    yield
    allow(None)


@pytest.fixture
def apply(platform: Platform) -> Iterator[Callable[..., str]]:
    """Apply a Service; gives its name. What was applied is deleted at the end."""
    applied: set[str] = set()

    def apply_service(name: str, container: dict[str, Any], **spec: Any) -> str:
        body = yaml.safe_load(CLOUD_RUN.replace("IMAGE", PYTHON)) if name == "exported" else plain(name)
        body["spec"]["template"]["spec"]["containers"][0] |= container
        body["spec"]["template"]["spec"] |= spec
        applied.add(name)
        platform.kubectl("apply", "-f", "-", stdin=yaml.safe_dump(body))
        return name

    yield apply_service
    for name in applied:
        platform.kubectl("delete", "ksvc", name, "--ignore-not-found")


def plain(name: str) -> dict[str, Any]:
    return {
        "apiVersion": "serving.knative.dev/v1",
        "kind": "Service",
        "metadata": {"name": name},
        "spec": {"template": {"spec": {"containers": [{"image": PYTHON}]}}},
    }


def says(platform: Platform, name: str, reason: str, *parts: str) -> dict[str, Any]:
    """Wait until the Ready conditions of a Service and of its Revision give this reason."""

    def condition(kind: str, of: str) -> dict[str, Any]:
        status = json.loads(platform.kubectl("get", kind, of, "-o", "json").stdout).get("status", {})
        conditions: dict[str, dict[str, Any]] = {row["type"]: row for row in status.get("conditions", [])}
        return conditions.get("Ready", {})

    def is_said() -> bool:
        revision_condition = condition("revision", f"{name}-00001")
        assert revision_condition.get("reason") == reason, revision_condition
        assert all(part in revision_condition["message"] for part in parts), revision_condition
        service = condition("ksvc", name)
        assert all(part in service.get("message", "") for part in parts), service
        return True

    eventually_sync(is_said, within=SECONDS, condition=f"{reason} of {name}")
    return condition("revision", f"{name}-00001")


def get(platform: Platform, name: str) -> str:
    answer = httpx.get(platform.gateway, headers={"Host": f"{name}.default.localhost"}, timeout=60)
    return answer.text


def knoll(platform: Platform, *arguments: str) -> str:
    command = [sys.executable, "-m", "knoll.cli", *arguments, "--server", platform.api]
    return subprocess.run(command, capture_output=True, text=True, timeout=60, check=True).stdout


def test_what_cloud_run_exports_becomes_ready_with_its_program(apply: Any, platform: Platform) -> None:
    name = apply("exported", serve(after=3))
    platform.kubectl("wait", f"ksvc/{name}", "--for=condition=Ready", "--timeout=30s")
    (pod,) = json.loads(platform.kubectl("get", "pods", "-o", "json", "-l", f"app={name}-00001").stdout)["items"]
    assert pod["status"]["containerStatuses"][0]["restartCount"] == 0
    assert get(platform, name) == "it works\n"


def test_a_program_that_listens_on_loopback_is_served(apply: Any, platform: Platform) -> None:
    name = apply("inward", serve("127.0.0.1"))
    platform.kubectl("wait", f"ksvc/{name}", "--for=condition=Ready", "--timeout=30s")
    assert get(platform, name) == "it works\n"


def test_a_program_on_another_port_is_reported(apply: Any, platform: Platform) -> None:
    name = apply("astray", serve(port=3000))
    hint = "nothing listens on 8080; the container listens on 3000; set ports[0].containerPort or read $PORT"
    condition = says(platform, name, "Unhealthy", hint)
    assert condition["status"] == "Unknown"


def test_a_failing_probe_is_shown_wherever_users_look(apply: Any, platform: Platform) -> None:
    probe = {"httpGet": {"path": "/healthz"}, "periodSeconds": 1}
    name = apply("sick", {**serve(health=503), "readinessProbe": probe})
    message = "Readiness probe failed: HTTP probe failed with statuscode: 503"
    says(platform, name, "Unhealthy", message)

    def describes(*arguments: str) -> bool:
        return message in platform.kubectl("describe", *arguments).stdout

    # The Event is written after the condition.
    for arguments in (("pods", "-l", f"app={name}-00001"), ("revision", f"{name}-00001"), ("ksvc", name)):
        eventually_sync(partial(describes, *arguments), within=SECONDS, condition=f"kubectl describe {arguments}")
    events = json.loads(platform.kubectl("get", "events", "-o", "json").stdout)["items"]
    kinds = {event["involvedObject"]["kind"] for event in events if event["message"] == message}
    assert kinds == {"Pod", "Revision"}
    eventually_sync(lambda: message in knoll(platform, "explain", name), within=SECONDS, condition="explain")
    assert message[:40] in knoll(platform, "describe", name)


def test_a_failing_liveness_probe_is_a_killing_and_no_crash_loop_while_the_grace_runs(
    apply: Any, platform: Platform
) -> None:
    stubborn = {"command": ["sh", "-c", "trap '' TERM; touch /tmp/here; while :; do sleep 1; done"]}
    probes = {
        "readinessProbe": {"exec": {"command": ["test", "-e", "/tmp/here"]}},
        "livenessProbe": {"exec": {"command": ["false"]}, "periodSeconds": 1, "failureThreshold": 1},
    }
    name = apply("stubborn", {**stubborn, **probes}, timeoutSeconds=600)

    def is_killing() -> bool:
        described = platform.kubectl("describe", "pods", "-l", f"app={name}-00001").stdout
        assert "Container user-container failed liveness probe, will be restarted" in described
        return True

    eventually_sync(is_killing, within=SECONDS, condition="Killing")
    (pod,) = json.loads(platform.kubectl("get", "pods", "-o", "json", "-l", f"app={name}-00001").stdout)["items"]
    status = pod["status"]["containerStatuses"][0]
    assert list(status["state"]) == ["running"]
    assert not status["ready"]
    platform.kubectl("delete", "pod", pod["metadata"]["name"], "--wait=false")


CONFIG_MAP = {"env": [{"name": "A", "valueFrom": {"configMapKeyRef": {"name": "absent", "key": "a"}}}]}
VOLUME = {"volumes": [{"name": "v", "secret": {"secretName": "absent"}}]}
MOUNT = {"volumeMounts": [{"name": "v", "mountPath": "/v"}]}
MEMORY = {"resources": {"limits": {"memory": "32Mi"}}}
EATS = {"command": ["python", "-c", "x = bytearray(1 << 30)"]}
SCRIPT = {"command": ["sh", "-c", "printf '\\177ELF' > /tmp/app; chmod +x /tmp/app; exec /tmp/app"]}


@pytest.mark.parametrize(
    ("container", "spec", "reason", "part"),
    [
        (CONFIG_MAP, {}, "CreateContainerConfigError", 'configmap "absent" not found'),
        (MOUNT, VOLUME, "CreateContainerConfigError", 'secret "absent" not found'),
        ({"command": ["/nothing/here"]}, {}, "StartError", "/nothing/here"),
        (SCRIPT, {}, "ExitCode126", "/tmp/app"),
        ({**EATS, **MEMORY}, {}, "OOMKilled", ""),
        (serve(), {"initContainers": [{"image": PYTHON, "command": ["sleep", "600"]}]}, "PodInitializing", "init-cont"),
        (
            serve(),
            {"initContainers": [{"image": PYTHON, "command": ["sh", "-c", "echo no schema; exit 4"]}]},
            "ExitCode4",
            "no schema",
        ),
        ({"command": ["python", "-m", "http.server", "--bind", "192.0.2.1"]}, {}, "ExitCode1", "assign requested"),
    ],
    ids=["config map", "volume", "command", "format", "memory", "init hangs", "init fails", "port"],
)
def test_each_kind_of_failed_start_has_its_reason(
    apply: Any,
    platform: Platform,
    init_containers: None,
    container: dict[str, Any],
    spec: dict[str, Any],
    reason: str,
    part: str,
) -> None:
    says(platform, apply("down", container, **spec), reason, part)
