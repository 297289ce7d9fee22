"""An instance that writes more to the disk than it may is evicted, says why, and is replaced."""

import json
import subprocess

import pytest

from tests.component.runtime.harness import build_image
from tests.e2e.platform import Platform, http
from tests.images import image_name
from tests.waiting import eventually_sync

pytestmark = [pytest.mark.docker, pytest.mark.redis, pytest.mark.kubectl]

IMAGE = image_name("disk")
SERVICE = """
apiVersion: serving.knative.dev/v1
kind: Service
metadata: {name: NAME}
spec:
  template:
    metadata: {annotations: {autoscaling.knative.dev/min-scale: "1"}}
    spec:
      containers:
        - image: IMAGE
          resources: {requests: {ephemeral-storage: 1Mi}, limits: {ephemeral-storage: 8Mi}}
"""


def containers_of(platform: Platform, service: str) -> list[str]:
    return platform.containers(f"label=serving.knative.dev/service={service}", "label=knoll.dev/role=app")


def test_an_instance_over_its_limit_is_evicted_as_on_kubernetes_and_its_neighbour_is_not(
    platform: Platform, tmp_path_factory: pytest.TempPathFactory
) -> None:
    build_image(tmp_path_factory.mktemp("program"), IMAGE)
    for name in ("writer", "neighbour"):
        platform.kubectl("apply", "-f-", stdin=SERVICE.replace("IMAGE", IMAGE).replace("NAME", name))
    try:
        platform.kubectl("wait", "ksvc/writer", "ksvc/neighbour", "--for=condition=Ready", "--timeout=60s")
        neighbours = containers_of(platform, "neighbour")
        (pod,) = json.loads(platform.kubectl("get", "pods", "-lserving.knative.dev/service=writer", "-ojson").stdout)[
            "items"
        ]
        shown = pod["spec"]["containers"][0]["resources"]
        assert shown["limits"]["ephemeral-storage"] == "8Mi"
        (container,) = containers_of(platform, "writer")
        copied = subprocess.run(["head", "-c", str(16 * 1024**2), "/dev/zero"], capture_output=True, check=True).stdout
        (tmp_path_factory.getbasetemp() / "large").write_bytes(copied)
        command = ["docker", "cp", str(tmp_path_factory.getbasetemp() / "large"), f"{container}:/large"]
        subprocess.run(command, check=True, capture_output=True)

        def message() -> str:
            name = pod["metadata"]["name"]
            return platform.kubectl("get", "events", f"--field-selector=involvedObject.name={name}").stdout

        eventually_sync(lambda: "Evicted" in message(), within=60, condition="the Event")
        assert 'Container user-container exceeded its local ephemeral storage limit "8Mi".' in message()
        eventually_sync(lambda: container not in platform.containers(), within=30, condition="it is gone")
        with http(platform) as client:
            answer = client.get("/", headers={"Host": "writer.default.localhost"})
            assert answer.status_code == 200, "another one serves"
            assert client.get("/", headers={"Host": "neighbour.default.localhost"}).status_code == 200
        assert len(neighbours) == 1
        assert containers_of(platform, "neighbour") == neighbours
    finally:
        platform.kubectl("delete", "ksvc", "writer", "neighbour", "--ignore-not-found")
