"""Steady load on the gateways of several machines: Services of one program, and a client that sends requests."""

import json
import subprocess
import sys
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from tests.clusters import IMAGE, Shell
from tests.machines import Machine, Machines

API = "http://127.0.0.1:8001"
SERVICES = f"{API}/apis/serving.knative.dev/v1/namespaces/default/services"
PROGRAM, CLIENT = (Path(__file__).with_name(name) for name in ("program.py", "client.py"))
TAG = "load:1"
"""The platform's image, which has Python, under a name that users may run."""


def service(name: str, annotations: Mapping[str, str], **container: Any) -> dict[str, Any]:
    """Return a Service of the program. Args: annotations: of its Revision. container: more fields of its container."""
    of_program = {"image": TAG, "command": ["python", "-c", PROGRAM.read_text()], **container}
    probe = {"readinessProbe": {"httpGet": {"path": "/"}}}
    spec = {"timeoutSeconds": 20, "containers": [{**probe, **of_program}]}
    return {
        "apiVersion": "serving.knative.dev/v1",
        "kind": "Service",
        "metadata": {"name": name, "namespace": "default"},
        "spec": {"template": {"metadata": {"annotations": dict(annotations)}, "spec": spec}},
    }


def apply(shell: Shell, body: Mapping[str, Any]) -> None:
    """Create a Service."""
    json_type = ("-H", "Content-Type: application/json")
    shell("curl", "-fsS", "-X", "POST", *json_type, "--data", json.dumps(body), SERVICES)


def tag_image(shells: Iterable[Shell]) -> None:
    """Give the image its name on all machines."""
    for shell in shells:
        shell("docker", "tag", IMAGE, TAG)


def host(name: str) -> str:
    """Return the host of a Service."""
    return f"{name}.default.localhost"


def pods(shell: Shell) -> list[dict[str, Any]]:
    """Return all Pods."""
    listed = json.loads(shell("curl", "-fsS", f"{API}/api/v1/namespaces/default/pods"))
    return list(listed["items"])


def ready_pods(shell: Shell, name: str) -> dict[str, str]:
    """Return the ready Pods of a Service that are not being deleted, by name, and the node of each."""
    return {
        pod["metadata"]["name"]: pod["spec"].get("nodeName", "")
        for pod in pods(shell)
        if pod["metadata"]["labels"].get("serving.knative.dev/service") == name
        and "deletionTimestamp" not in pod["metadata"]
        and any(each["type"] == "Ready" and each["status"] == "True" for each in pod["status"].get("conditions", ()))
    }


class Load:
    """Clients on one machine that send requests to the gateways of several."""

    def __init__(self, machine: Machine, gateways: Machines, kinds: Iterable[tuple[str, str]]) -> None:
        """Args: kinds: a kind of client (see `client`) and the Service that it uses; one client for each gateway."""
        clients = [f"{kind} {host(name)} http://{each.address}:8080" for kind, name in kinds for each in gateways]
        self._process = machine.spawn(
            sys.executable, str(CLIENT), ",".join(clients), stdin=subprocess.PIPE, stdout=subprocess.PIPE
        )

    def stop(self) -> dict[str, Any]:
        """Return what happened to all requests: `good`, `failed`, `longest`."""
        output, _ = self._process.communicate(timeout=120)
        return dict(json.loads(output))
