"""One platform for all end-to-end tests of a run, and the sample's image on it."""

import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.conftest import need
from tests.e2e.platform import Platform, running

ROOT = Path(__file__).parents[2]
MAX_UPLOAD_BYTES = 64 * 1024**2
"""Bound of uploads on the tests' platform."""


def docker_runs() -> bool:
    return (
        shutil.which("docker") is not None and subprocess.run(["docker", "info"], capture_output=True).returncode == 0
    )


@pytest.fixture(scope="session")
def platform(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Platform]:
    """A running platform; tests share it and clean up what they apply."""
    need("DOCKER", docker_runs())
    need("REDIS", shutil.which("redis-server") is not None)
    need("KUBECTL", shutil.which("kubectl") is not None)
    settings = {"KNOLL_MAX_UPLOAD_BYTES": str(MAX_UPLOAD_BYTES), "KNOLL_QUIET_SECONDS": "2"}
    with running(tmp_path_factory.mktemp("platform"), None, **settings) as platform:
        yield platform


@pytest.fixture(scope="session")
def sample(platform: Platform) -> str:
    """The Go sample's image, built by the platform itself; returns its name."""
    tag = "rest-api-go:v1"
    command = [sys.executable, "-m", "knoll.cli", "build", str(ROOT / "samples/rest-api-go"), "--tag", tag]
    done = subprocess.run([*command, "--server", platform.api], capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stdout + done.stderr
    return tag


@pytest.hookimpl(hookwrapper=True)
def pytest_runtest_makereport(item: pytest.Item) -> Iterator[None]:
    """Show the end of the platform's log with a test that failed."""
    outcome = yield
    report = outcome.get_result()  # type: ignore[attr-defined]
    used = getattr(item, "funcargs", {}).get("platform")
    if report.failed and isinstance(used, Platform):
        report.sections.append(("platform", "".join(used.output[-80:])))
