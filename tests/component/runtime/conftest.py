"""The fixtures of the runtime's tests: one engine each, fake and real."""

from collections.abc import AsyncIterator

import pytest

from autoscaler.runtime.docker_runtime import DockerRuntime
from autoscaler.runtime.protocol import Runtime
from tests.component.runtime.harness import DockerHarness, FakeHarness, Harness, build_image, docker_runs
from tests.conftest import need


@pytest.fixture(scope="session")
def test_image(tmp_path_factory: pytest.TempPathFactory) -> None:
    """The image of program/main.go is on the engine."""
    need("DOCKER", docker_runs())
    build_image(tmp_path_factory.mktemp("program"))


@pytest.fixture(params=["fake", pytest.param("docker", marks=pytest.mark.docker)])
async def harness(request: pytest.FixtureRequest) -> AsyncIterator[Harness]:
    """An engine with a platform of its own."""
    if request.param == "docker":
        request.getfixturevalue("test_image")
    made: Harness = FakeHarness() if request.param == "fake" else DockerHarness()
    yield made
    await made.clean()


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
