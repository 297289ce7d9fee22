"""Folders for the secrets of a running build. Folders of a worker that was killed are removed by the next worker."""

import contextlib
import os
import re
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path

import structlog

from builder.maintenance import recovery

log = structlog.get_logger()

_NAME = re.compile(r"knoll-build-(\d+)-(\d+)-.+")


@contextlib.contextmanager
def folder() -> Iterator[Path]:
    """Yield a folder that other users cannot read, named after this process; it is removed afterwards."""
    ourselves = recovery.process(os.getpid())
    assert ourselves
    with tempfile.TemporaryDirectory(prefix=f"knoll-build-{ourselves[0]}-{ourselves[1]}-") as path:
        yield Path(path)


def sweep() -> None:
    """Remove the folders of processes that have ended."""
    for path in Path(tempfile.gettempdir()).glob("knoll-build-*"):
        name = _NAME.fullmatch(path.name)
        if name and recovery.process(int(name[1])) != (int(name[1]), int(name[2])):
            shutil.rmtree(path, ignore_errors=True)
            log.info("files of a dead worker removed", folder=str(path))
