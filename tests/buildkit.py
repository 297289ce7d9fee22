"""The BuildKit daemon that tests build with: one for all of them, whose caches outlive it."""

import atexit
import contextlib
import fcntl
import functools
import subprocess
from collections.abc import Iterator
from pathlib import Path

from builder.build.buildkit import Daemon
from knoll.process.settings import BUILDKIT_IMAGE, BuilderSettings
from tests.conftest import need
from tests.waiting import eventually_sync

FOLDER = Path("/var/tmp/knoll-test-buildkit")
NETWORK = "knoll-test-builds"
SETTINGS = BuilderSettings(
    platform="knoll-test",
    build_network=NETWORK,
    buildkit_image=BUILDKIT_IMAGE,
    buildkit_socket=FOLDER / "run" / "buildkit" / "buildkitd.sock",
    layers_dir=FOLDER / "layers",
)
ENVIRONMENT = {
    "KNOLL_BUILDKIT_SOCKET": str(SETTINGS.buildkit_socket),
    "KNOLL_BUILD_NETWORK": NETWORK,
    "KNOLL_LAYERS_DIR": str(SETTINGS.layers_dir),
}


@contextlib.contextmanager
def daemon() -> Iterator[dict[str, str]]:
    """A daemon that answers, and the settings that lead to it; the last of several users removes it."""
    has_image = subprocess.run(["docker", "image", "inspect", BUILDKIT_IMAGE], capture_output=True).returncode == 0
    need("DOCKER", has_image or subprocess.run(["docker", "pull", "-q", BUILDKIT_IMAGE]).returncode == 0)
    FOLDER.mkdir(exist_ok=True)
    ours = Daemon(SETTINGS)
    with (FOLDER / "users").open("w") as users, (FOLDER / "change").open("w") as change:
        fcntl.flock(change, fcntl.LOCK_EX)
        fcntl.flock(users, fcntl.LOCK_SH)
        ours.ensure()
        eventually_sync(SETTINGS.buildkit_socket.exists, within=60, condition="the BuildKit daemon")
        fcntl.flock(change, fcntl.LOCK_UN)
        try:
            yield ENVIRONMENT
        finally:
            fcntl.flock(change, fcntl.LOCK_EX)
            fcntl.flock(users, fcntl.LOCK_UN)
            with contextlib.suppress(BlockingIOError):
                fcntl.flock(users, fcntl.LOCK_EX | fcntl.LOCK_NB)
                ours.remove()


@functools.cache
def shared() -> dict[str, str]:
    """Settings that lead to a daemon which runs until this process ends."""
    stack = contextlib.ExitStack()
    atexit.register(stack.close)
    return stack.enter_context(daemon())
