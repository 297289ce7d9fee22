"""Folders for secrets while a build runs. A worker that is killed cannot remove its own: the next one does."""

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
    """A folder that nobody else may read, gone afterwards; its name says whose it is."""
    ourselves = recovery.process(os.getpid())
    assert ourselves
    with tempfile.TemporaryDirectory(prefix=f"knoll-build-{ourselves[0]}-{ourselves[1]}-") as path:
        yield Path(path)


def sweep() -> None:
    """Remove the folders of processes that are dead."""
    for path in Path(tempfile.gettempdir()).glob("knoll-build-*"):
        found = _NAME.fullmatch(path.name)
        if found and recovery.process(int(found[1])) != (int(found[1]), int(found[2])):
            shutil.rmtree(path, ignore_errors=True)
            log.info("files of a dead worker removed", folder=str(path))
