"""Any process may die at any moment: instances keep serving, nothing is lost, and everything converges without help."""

import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

import httpx
import pytest

from tests.e2e.platform import Platform
from tests.waiting import eventually_sync

pytestmark = [pytest.mark.docker, pytest.mark.redis, pytest.mark.kubectl]

ROOT = Path(__file__).parents[2]
NAME = "survivor"
HOST = f"{NAME}.default.localhost"
MANIFEST = """
apiVersion: serving.knative.dev/v1
kind: Service
metadata: {name: survivor, namespace: default}
spec:
  template:
    metadata:
      annotations: {autoscaling.knative.dev/min-scale: "1"}
    spec:
      containers:
        - image: IMAGE
          env: [{name: RESOURCE, value: VALUE}]
"""


@dataclass
class Flow:
    """Requests without a pause; what came back."""

    good: int = 0
    failed: list[tuple[float, str]] = field(default_factory=list)
    """When a request that failed began, and why it failed."""

    def more(self, least: int = 100) -> None:
        """Wait until so many more were answered well."""
        target = self.good + least
        eventually_sync(lambda: self.good >= target, within=60, condition=f"{least} more answers, {self.failed[-3:]}")


@contextmanager
def flowing(platform: Platform) -> Iterator[Flow]:
    flow, stop = Flow(), threading.Event()

    def client_loop() -> None:
        client = httpx.Client(base_url=platform.gateway, timeout=30)
        while not stop.is_set():
            began = time.monotonic()
            try:
                answer = client.get("/", headers={"Host": HOST})
                if answer.status_code == 200:
                    flow.good += 1
                else:
                    flow.failed.append((began, f"{answer.status_code} {answer.text}"))
            except httpx.HTTPError as error:
                flow.failed.append((began, repr(error)))
                stop.wait(0.02)
        client.close()

    clients = [threading.Thread(target=client_loop) for _ in range(4)]
    for http_client in clients:
        http_client.start()
    try:
        yield flow
    finally:
        stop.set()
        for http_client in clients:
            http_client.join()


@pytest.fixture
def service(platform: Platform, sample: str) -> Iterator[str]:
    def apply(value: str) -> None:
        platform.kubectl("apply", "-f", "-", stdin=MANIFEST.replace("IMAGE", sample).replace("VALUE", value))

    apply("one")
    platform.kubectl("wait", f"ksvc/{NAME}", "--for=condition=Ready", "--timeout=60s")
    yield sample
    platform.kubectl("delete", "ksvc", NAME)
    # The next test must not take instances that still end for its own.
    eventually_sync(lambda: not apps(platform), within=60, condition="no instance")


def apps(platform: Platform) -> set[str]:
    return set(platform.containers("label=knoll.dev/role=app", f"label=serving.knative.dev/service={NAME}"))


def identities(platform: Platform) -> set[str]:
    """uid of every object of the Service; empty while the API does not respond."""
    arguments = ("get", "ksvc,configuration,route,revision", "-o", "jsonpath={.items[*].metadata.uid}")
    return set(platform.kubectl(*arguments, check=False).stdout.split())


def changes_take_effect(platform: Platform, sample: str, value: str) -> None:
    """A new revision comes up and gets the traffic: everybody does their part again."""
    manifest = MANIFEST.replace("IMAGE", sample).replace("VALUE", value)

    def applied() -> bool:
        return platform.kubectl("apply", "-f", "-", stdin=manifest, check=False).returncode == 0

    def answered() -> bool:
        try:
            text = httpx.get(platform.gateway, headers={"Host": HOST}, timeout=30).text
        except httpx.HTTPError:
            return False
        return text == f"Welcome to the {value} app!\n"

    eventually_sync(applied, within=60, condition="the API")
    eventually_sync(answered, within=90, condition=f"revision {value} to answer")


@pytest.mark.timeout(400)
@pytest.mark.parametrize("part", ["api", "builder", "autoscaler", "redis"])
def test_requests_flow_on_when_a_part_is_killed(platform: Platform, service: str, part: str) -> None:
    # Instances of an earlier test's Service may still be ending.
    eventually_sync(lambda: len(apps(platform)) == 1, within=60, condition="one instance")
    before, containers = identities(platform), apps(platform)
    with flowing(platform) as flow:
        flow.more()
        platform.kill(part)
        flow.more()
        eventually_sync(lambda: platform.pids(part), within=60, condition=f"{part} to be back")
        flow.more(300)
    assert flow.failed == []
    eventually_sync(lambda: identities(platform) == before, within=60, condition="every object")
    assert containers <= apps(platform), "a running instance was killed"
    changes_take_effect(platform, service, f"after-{part}")


@pytest.mark.timeout(400)
def test_requests_flow_again_when_the_activator_was_killed(platform: Platform, service: str) -> None:
    before = identities(platform)
    with flowing(platform) as flow:
        flow.more()
        platform.kill("activator")
        flow.more(300)
        back = time.monotonic()
        flow.more(300)
    # A count would not do: one that began before may fail late.
    assert [why for began, why in flow.failed if began > back] == [], "requests failed after the activator was back"
    assert identities(platform) == before
    changes_take_effect(platform, service, "after-activator")
