"""Idle instances, instances without capacity, and the Server-Timing of a cold start; on the real engine."""

import json
import re
import time
from collections.abc import Iterator

import httpx
import pytest

from tests.e2e.platform import Platform
from tests.waiting import eventually_sync

pytestmark = [pytest.mark.docker, pytest.mark.redis, pytest.mark.kubectl]

QUICK = {"autoscaling.knative.dev/window": "6s"}


def apply(platform: Platform, name: str, image: str, annotations: dict[str, str], **container: object) -> None:
    template = {
        "metadata": {"annotations": annotations},
        "spec": {"containers": [{"image": image, "env": [{"name": "RESOURCE", "value": name}], **container}]},
    }
    body = {"apiVersion": "serving.knative.dev/v1", "kind": "Service", "metadata": {"name": name}}
    platform.kubectl("apply", "-f", "-", stdin=json.dumps({**body, "spec": {"template": template}}))


def containers(platform: Platform, name: str, status: str) -> list[str]:
    return platform.containers(
        "label=knoll.dev/role=app", f"label=serving.knative.dev/service={name}", f"status={status}"
    )


def ask(platform: Platform, name: str) -> httpx.Response:
    answer = httpx.get(platform.gateway, headers={"Host": f"{name}.default.localhost"}, timeout=60)
    assert answer.status_code == 200, answer.text
    return answer


@pytest.fixture
def services(platform: Platform) -> Iterator[list[str]]:
    """Names of what a test applied; deleted at its end."""
    names: list[str] = []
    yield names
    for name in names:
        platform.kubectl("delete", "ksvc", name, check=False)
        eventually_sync(
            lambda name=name: not platform.containers(f"label=serving.knative.dev/service={name}"),  # type: ignore[misc]
            within=60,
            condition=f"no instance of {name}",
        )


@pytest.mark.timeout(300)
def test_a_paused_instance_survives_a_killed_autoscaler_and_serves_in_its_place(
    platform: Platform, sample: str, services: list[str]
) -> None:
    services.append("sleeper")
    apply(platform, "sleeper", sample, {**QUICK, "knoll.dev/paused-retention-period": "1h"})
    platform.kubectl("wait", "ksvc/sleeper", "--for=condition=Ready", "--timeout=60s")
    eventually_sync(lambda: containers(platform, "sleeper", "paused"), within=90, condition="a paused instance")
    before = containers(platform, "sleeper", "paused")
    pods = ("pods", "-l", "serving.knative.dev/service=sleeper")
    arguments = [*pods, "-o", 'jsonpath={.items[*].status.conditions[?(@.type=="Ready")].reason}']
    eventually_sync(
        lambda: platform.kubectl("get", *arguments).stdout == "Paused", within=60, condition="the Pod says so"
    )
    kept = [*pods, "-o", r"jsonpath={.items[*].metadata.annotations.knoll\.dev/kept-memory-bytes}"]
    assert int(platform.kubectl("get", *kept).stdout) > 0
    old = platform.pids("autoscaler")
    platform.kill("autoscaler")
    eventually_sync(lambda: set(platform.pids("autoscaler")) - set(old), within=60, condition="the autoscaler")
    ask(platform, "sleeper")
    assert containers(platform, "sleeper", "running") == before


@pytest.mark.timeout(300)
def test_missing_capacity_is_reported_and_recovers(platform: Platform, sample: str, services: list[str]) -> None:
    services.append("giant")
    apply(platform, "giant", sample, QUICK, resources={"requests": {"cpu": "900"}})
    wait = ("wait", "revision", "-l", "serving.knative.dev/service=giant", "--timeout=60s")
    platform.kubectl(*wait, "--for=condition=ResourcesAvailable=False")
    output = platform.kubectl("get", "ksvc", "giant", "-o", "jsonpath={.status.conditions[*].message}").stdout
    assert "Insufficient cpu" in output
    reasons = platform.kubectl("get", "revision", "-l", "serving.knative.dev/service=giant", "-o", "json").stdout
    assert '"Unschedulable"' in reasons
    apply(platform, "giant", sample, QUICK, resources={"requests": {"cpu": "10m"}})
    platform.kubectl("wait", "ksvc/giant", "--for=condition=Ready", "--timeout=60s")
    ask(platform, "giant")


@pytest.mark.timeout(300)
def test_the_parts_of_a_wait_add_up_to_it(platform: Platform, sample: str, services: list[str]) -> None:
    services.append("waiter")
    apply(platform, "waiter", sample, QUICK)
    platform.kubectl("wait", "ksvc/waiter", "--for=condition=Ready", "--timeout=60s")
    # The client's clock sees its connection and the app's answer on top: a few milliseconds, which a busy machine may
    # stretch now and then, but parts that do not add up are missing each time.
    assert any(_adds_up(platform) for _ in range(3))


def _adds_up(platform: Platform) -> bool:
    """Ask once from zero and once more; whether what the parts leave out is no more than a request takes anyway."""
    ask(platform, "waiter")
    eventually_sync(
        lambda: not platform.containers("label=serving.knative.dev/service=waiter"), within=90, condition="zero"
    )
    began = time.perf_counter()
    answer = ask(platform, "waiter")
    took = (time.perf_counter() - began) * 1000
    parts = {name: float(ms) for name, ms in re.findall(r"(\w+);dur=([\d.]+)", answer.headers["server-timing"])}
    assert set(parts) == {"queue", "schedule", "start", "ready", "response"}
    assert parts["start"] > 0
    total = sum(parts.values())
    assert total <= took
    hot = time.perf_counter()
    ask(platform, "waiter")
    return took - total <= 0.05 * took + 2 * (time.perf_counter() - hot) * 1000
