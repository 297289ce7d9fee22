"""Images that tests make: their names belong to one run, an image is built once in it, and its end removes them."""

import fcntl
import os
import shutil
import subprocess
import tempfile
import uuid
from collections.abc import Callable
from pathlib import Path

RUN = os.environ.setdefault("KNOLL_TEST_RUN", uuid.uuid4().hex[:8])
"""Of this run; its worker processes inherit it."""
_REPOSITORY = f"knoll-test-{RUN}"


def image_name(name: str) -> str:
    """Return the full name of an image of this run: `program` becomes `knoll-test-1a2b3c4d/program:1`."""
    return f"{_REPOSITORY}/{name}:1"


def build_once(reference: str, build: Callable[[], None]) -> None:
    """Call `build`, which makes the image `reference`, unless a worker of this run has done so already."""
    with (_locks() / reference.replace("/", "_")).open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if _docker("image", "inspect", reference).returncode:
            build()


def remove_images() -> None:
    """Remove the images of this run. By name: another run may have an image of the same content."""
    shutil.rmtree(_locks(), ignore_errors=True)
    if shutil.which("docker"):
        listed = _docker("image", "ls", "--format={{.Repository}}:{{.Tag}}", f"--filter=reference={_REPOSITORY}/*")
        if names := listed.stdout.split():
            _docker("image", "rm", "--force", *names)


def _locks() -> Path:
    folder = Path(tempfile.gettempdir()) / _REPOSITORY
    folder.mkdir(exist_ok=True)
    return folder


def _docker(*arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(["docker", *arguments], capture_output=True, text=True, timeout=120)
