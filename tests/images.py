"""Images that tests make: their names belong to one run, each is built once in a run, and its end removes them.

The images of platforms are named after the platform: `platform_name` records the platforms of this run. The end of the
run removes their packet filters too, which a `knoll up` that was killed leaves behind.
"""

import fcntl
import os
import shutil
import subprocess
import tempfile
import uuid
from collections.abc import Callable
from pathlib import Path

from knoll.firewall import nft
from knoll.resources.validation.reserved_images import BUILT_PREFIX, PINNED_PREFIX

RUN = os.environ.setdefault("KNOLL_TEST_RUN", uuid.uuid4().hex[:8])
"""Of this run; its worker processes inherit it."""
_REPOSITORY = f"knoll-test-{RUN}"
_PLATFORMS = "platforms"


def image_name(name: str) -> str:
    """Return the full name of an image of this run: `program` becomes `knoll-test-1a2b3c4d/program:1`."""
    return f"{_REPOSITORY}/{name}:1"


def build_once(reference: str, build: Callable[[], None]) -> None:
    """Call `build`, which makes the image `reference`, unless a worker of this run has done so already."""
    with (_folder() / reference.replace("/", "_")).open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if _run("docker", "image", "inspect", reference).returncode:
            build()


def platform_name(kind: str) -> str:
    """Return a new name of a platform, such as `test-1a2b3c4d`, and note it for the end of the run.

    Args: kind: what comes before eight hexadecimal digits.
    """
    name = f"{kind}-{uuid.uuid4().hex[:8]}"
    with (_folder() / _PLATFORMS).open("a") as names:
        names.write(f"{name}\n")
    return name


def clean_up() -> None:
    """Remove the images of this run, and what its platforms have left."""
    noted = _folder() / _PLATFORMS
    names = noted.read_text().split() if noted.exists() else []
    shutil.rmtree(_folder(), ignore_errors=True)
    remove_images(f"{_REPOSITORY}/*", *(reference for name in names for reference in references_of(name)))
    if (binary := nft.program()) and nft.may_filter():
        tables = _run(binary, "list", "tables").stdout.splitlines()
        for table in tables:  # such as `table inet knoll-test-1a2b3c4d`
            if table.rpartition(" ")[2] in {f"knoll-{name}" for name in names}:
                _run(binary, "delete", *table.split())


def references_of(platform: str) -> tuple[str, str]:
    """Return what the images of a platform are called: those that it pinned, and those that its Builds made."""
    return (f"{PINNED_PREFIX}/{platform}", f"{BUILT_PREFIX}/{platform}/*")


def remove_images(*references: str) -> None:
    """Remove names of images. Never by id: another run may have an image of the same content.

    Args: references: as `docker image ls --filter=reference=…` takes them.
    """
    if not references or not shutil.which("docker"):
        return
    filters = [f"--filter=reference={reference}" for reference in references]
    listed = _run("docker", "image", "ls", "--format={{.Repository}}:{{.Tag}}", *filters).stdout.split()
    if names := [name for name in listed if not name.endswith(":<none>")]:
        _run("docker", "image", "rm", "--force", *names)


def _folder() -> Path:
    """What the processes of this run share."""
    folder = Path(tempfile.gettempdir()) / _REPOSITORY
    folder.mkdir(exist_ok=True)
    return folder


def _run(*command: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(command, capture_output=True, text=True, timeout=120)
