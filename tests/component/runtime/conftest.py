"""The fixtures of the runtime's tests: one engine each, fake and real."""

from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from autoscaler.runtime.docker.docker_runtime import DockerRuntime
from autoscaler.runtime.protocol import Runtime
from knoll.engine_proxy.policy import AUTOSCALER, ProxyPolicy
from knoll.engine_proxy.proxy import Gate, serve
from tests.component.runtime.harness import SOCKET, DockerHarness, FakeHarness, Harness, build_image, docker_runs
from tests.conftest import need


@pytest.fixture(scope="session")
def test_image(tmp_path_factory: pytest.TempPathFactory) -> None:
    """The image of program/main.go is on the engine."""
    need("DOCKER", docker_runs())
    build_image(tmp_path_factory.mktemp("program"))


@pytest.fixture(params=["fake", pytest.param("docker", marks=pytest.mark.docker)])
async def harness(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[Harness]:
    """An engine with a platform of its own. Docker is asked through the engine proxy, as with Compose."""
    if request.param == "fake":
        fake = FakeHarness()
        yield fake
        await fake.clean()
        return
    request.getfixturevalue("test_image")
    made = DockerHarness()
    proxy = await serve(Gate(ProxyPolicy(AUTOSCALER, made.platform, made.network), SOCKET), tmp_path / "docker.sock")
    made.socket = tmp_path / "docker.sock"
    yield made
    await made.clean()
    proxy.close()


@pytest.fixture
async def runtime(harness: Harness) -> AsyncIterator[Runtime]:
    async with harness.runtime() as opened:
        yield opened


@pytest.fixture
async def docker_harness(test_image: None) -> AsyncIterator[DockerHarness]:
    made = DockerHarness()
    yield made
    await made.clean()


@pytest.fixture
async def docker_runtime(docker_harness: DockerHarness) -> AsyncIterator[DockerRuntime]:
    async with docker_harness.runtime() as opened:
        yield opened
