"""A platform on a container engine of its own, which tests may kill."""

import os
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.component.runtime.harness import IMAGE, build_image, docker_runs
from tests.conftest import need
from tests.e2e.platform import Platform, running
from tests.own_engine import OwnEngine, own_engine


@pytest.fixture(scope="package")
def engine(tmp_path_factory: pytest.TempPathFactory) -> Iterator[OwnEngine]:
    need("DOCKER", docker_runs() and shutil.which("dockerd") is not None and os.geteuid() == 0)
    need("KUBECTL", shutil.which("kubectl") is not None)
    build_image(tmp_path_factory.mktemp("program"))
    with own_engine(Path(tempfile.mkdtemp(prefix="knoll-e"))) as engine:
        engine.copy_image(IMAGE)
        yield engine


@pytest.fixture(scope="package")
def platform(engine: OwnEngine, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Platform]:
    """A platform on an engine of its own."""
    folder = tmp_path_factory.mktemp("platform")
    with running(folder, KNOLL_DOCKER_SOCKET=str(engine.socket), DOCKER_HOST=engine.host) as platform:
        yield platform
