"""Armed instances, from the first request to the removal of the platform; on the real engine."""

import json
import subprocess
import sys
from collections.abc import Iterator
from typing import Any

import httpx
import pytest

from tests.component.runtime.harness import build_configured_image, build_image
from tests.e2e.platform import Platform, http
from tests.waiting import eventually_sync

pytestmark = [pytest.mark.docker, pytest.mark.redis, pytest.mark.kubectl]

NAME = "armed"
SELECTOR = f"label=serving.knative.dev/service={NAME}"


@pytest.fixture(scope="module")
def image(tmp_path_factory: pytest.TempPathFactory) -> str:
    build_image(tmp_path_factory.mktemp("program"))
    return build_configured_image()


@pytest.fixture
def service(platform: Platform, image: str) -> Iterator[str]:
    """A Service of an image with ENTRYPOINT and CMD, a relative command, a user and a working directory."""
    template = {
        "metadata": {"annotations": {"autoscaling.knative.dev/window": "6s"}},
        "spec": {"containers": [{"image": image, "env": [{"name": "OF_SPEC", "value": "yes"}]}]},
    }
    body = {
        "apiVersion": "serving.knative.dev/v1",
        "kind": "Service",
        "metadata": {"name": NAME},
        "spec": {"template": template},
    }
    platform.kubectl("apply", "-f", "-", stdin=json.dumps(body))
    platform.kubectl("wait", f"ksvc/{NAME}", "--for=condition=Ready", "--timeout=60s")
    yield NAME
    platform.kubectl("delete", "ksvc", NAME)
    eventually_sync(
        lambda: not platform.containers(SELECTOR) and not platform.armed_instances(SELECTOR), within=60,
        condition="nothing of it is left",
    )  # fmt: skip


def until_armed(platform: Platform) -> str:
    """Wait until the Service is at zero and an instance of it is armed; returns its container."""

    def armed() -> bool:
        return not platform.containers(SELECTOR) and len(platform.armed_instances(SELECTOR)) == 1

    eventually_sync(armed, within=90, condition="an armed instance and no other")
    (container,) = platform.armed_instances(SELECTOR)
    return container


def ask(platform: Platform, path: str = "/facts") -> httpx.Response:
    with http(platform) as client:
        answer = client.get(path, headers={"Host": f"{NAME}.default.localhost"})
    assert answer.status_code == 200, answer.text
    return answer


def test_a_request_from_zero_is_served_by_the_armed_instance(platform: Platform, service: str) -> None:
    container = until_armed(platform)
    assert platform.kubectl("get", "pods", "-l", f"serving.knative.dev/service={NAME}").stdout.strip() == ""
    answer = ask(platform)
    facts: dict[str, Any] = answer.json()
    assert (facts["uid"], facts["gid"], facts["dir"]) == ("1234", "5678", "/")
    assert facts["args"] == "./program serve two words"
    assert (facts["env OF_IMAGE"], facts["env OF_SPEC"]) == ("yes", "yes")
    assert "start;dur=" in answer.headers["server-timing"]
    assert platform.containers(SELECTOR) == [container]
    pods = ("get", "pods", "-l", f"serving.knative.dev/service={NAME}", "-o", "jsonpath={.items[*].metadata.name}")
    assert facts["env HOSTNAME"] == facts["hostname"]
    eventually_sync(
        lambda: platform.kubectl(*pods).stdout.split() == [facts["hostname"]], within=30, condition="its Pod is shown"
    )

    def events() -> bool:
        return "Started armed instance" in platform.kubectl("get", "events").stdout

    eventually_sync(events, within=30, condition="the Event")
    command = [sys.executable, "-m", "knoll.cli", "explain", NAME, "--server", platform.api]

    def explained() -> bool:  # decisions are published in the background
        output = subprocess.run(command, capture_output=True, text=True, timeout=60, check=True).stdout
        return "an armed instance is released" in output

    eventually_sync(explained, within=30, condition="the explanation")


def test_an_armed_instance_outlives_a_killed_autoscaler_and_one_that_is_killed_is_replaced(
    platform: Platform, service: str
) -> None:
    container = until_armed(platform)
    platform.kill("autoscaler")
    eventually_sync(
        lambda: httpx.get(f"{platform.api}/readyz", timeout=30).status_code == 200, within=60, condition="readiness"
    )
    assert ask(platform).status_code == 200
    until_armed(platform)
    (container,) = platform.armed_instances(SELECTOR)
    subprocess.run(["docker", "kill", container], check=True, capture_output=True)

    def replaced() -> bool:
        return bool(platform.armed_instances(SELECTOR)) and platform.armed_instances(SELECTOR) != [container]

    eventually_sync(replaced, within=60, condition="another one is armed")
    assert ask(platform).status_code == 200
