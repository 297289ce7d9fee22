"""The container engine stops, starts again, or is not running yet: the platform recovers by itself."""

import os
import subprocess
import sys
from pathlib import Path

import httpx
import pytest

from tests.component.runtime.harness import IMAGE
from tests.conftest import free_port
from tests.e2e import armed
from tests.e2e.platform import Platform
from tests.own_engine import OwnEngine
from tests.waiting import eventually_sync

pytestmark = [pytest.mark.docker, pytest.mark.redis, pytest.mark.kubectl]

MANIFEST = """
apiVersion: serving.knative.dev/v1
kind: Service
metadata: {name: NAME, namespace: default}
spec:
  template:
    metadata:
      annotations: {autoscaling.knative.dev/min-scale: "MIN"}
    spec:
      timeoutSeconds: 5
      containers: [{image: IMAGE}]
"""


def apps(engine: OwnEngine, platform: Platform, name: str) -> set[str]:
    """Ids of a Service's running app containers."""
    filters = (f"label=knoll.dev/platform={platform.name}", "label=knoll.dev/role=app",
             f"label=serving.knative.dev/service={name}")  # fmt: skip
    output = engine.docker("ps", "-q", *(f"--filter={word}" for word in filters), check=False)
    return set(armed.running(output.stdout.split(), lambda *arguments: engine.docker(*arguments, check=False).stdout))


def answers(platform: Platform, name: str) -> bool:
    try:
        answer = httpx.get(platform.gateway, headers={"Host": f"{name}.default.localhost"}, timeout=30)
    except httpx.HTTPError:
        return False
    return answer.status_code == 200


@pytest.mark.timeout(400)
def test_instances_that_died_with_the_engine_are_replaced(engine: OwnEngine, platform: Platform) -> None:
    platform.kubectl(
        "apply", "-f", "-", stdin=MANIFEST.replace("NAME", "two").replace("IMAGE", IMAGE).replace("MIN", "2")
    )
    platform.kubectl("wait", "ksvc/two", "--for=condition=Ready", "--timeout=60s")
    eventually_sync(lambda: len(apps(engine, platform, "two")) == 2, within=60, condition="two instances")
    before = apps(engine, platform, "two")
    pids = platform.pids("autoscaler")
    engine.kill()
    engine.start()
    eventually_sync(
        lambda: len(apps(engine, platform, "two") - before) == 2 and not before & apps(engine, platform, "two"),
        within=90,
        condition="two new instances",
    )
    eventually_sync(lambda: answers(platform, "two"), within=60, condition="an answer")
    assert platform.pids("autoscaler") == pids, "the autoscaler was started again"
    platform.kubectl("delete", "ksvc", "two")
    eventually_sync(lambda: not apps(engine, platform, "two"), within=60, condition="no instance")


@pytest.mark.timeout(200)
def test_an_autoscaler_waits_for_an_unavailable_engine(engine: OwnEngine, redis_url: str, tmp_path: Path) -> None:
    port = free_port()
    link = tmp_path / "docker.sock"
    name = f"test-wait-{port}"
    environment = {
        **os.environ, "KNOLL_DOCKER_SOCKET": str(link), "KNOLL_REDIS_URL": redis_url, "KNOLL_PLATFORM": name,
        "KNOLL_INSTANCE_NETWORK": f"{name}-instances", "KNOLL_AUTOSCALER_ADMIN_PORT": str(port),
    }  # fmt: skip
    log = tmp_path / "log"

    def health() -> httpx.Response | None:
        try:
            return httpx.get(f"http://127.0.0.1:{port}/healthz", timeout=30)
        except httpx.HTTPError:
            return None

    with log.open("wb") as out:
        process = subprocess.Popen([sys.executable, "-m", "autoscaler"], env=environment, stdout=out, stderr=out)
    try:
        eventually_sync(lambda: health() is not None, within=60, condition="the admin port")
        eventually_sync(
            lambda: "engine unavailable, waiting to take over" in log.read_text(), within=60, condition="a word of it"
        )
        response = httpx.get(f"http://127.0.0.1:{port}/readyz", timeout=30)
        assert response.status_code == 503
        assert str(link) in response.text
        link.symlink_to(engine.socket)

        def prepared() -> bool:
            filters = f"--filter=label=knoll.dev/platform={name}"
            return bool(engine.docker("ps", "-q", filters).stdout.split())

        eventually_sync(prepared, within=60, condition="sandboxes")
        assert httpx.get(f"http://127.0.0.1:{port}/readyz", timeout=30).status_code == 200
        assert process.poll() is None
    finally:
        process.terminate()
        process.wait(60)
