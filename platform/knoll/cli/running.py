"""Which `knoll up` runs with a folder: one at a time, and `knoll down` finds it."""

import contextlib
import fcntl
import json
import os
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

from knoll.values.errors import KnollError

_FILE = "up.json"


class AlreadyRunningError(KnollError):
    """Another `knoll up` has the folder."""


@dataclass(frozen=True, slots=True)
class Run:
    """A `knoll up`, alive or dead."""

    pid: int
    environment: Mapping[str, str]
    """What its processes were started with."""
    alive: bool


@contextlib.contextmanager
def held(data: Path, environment: Mapping[str, str]) -> Iterator[None]:
    """Have the folder for this process alone, and leave in it what `knoll down` must know.

    Raises: AlreadyRunningError.
    """
    with (data / _FILE).open("a+") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            found = find(data)
            raise AlreadyRunningError(
                f"`knoll up` runs already with {data}{f' (process {found.pid})' if found else ''}: end it with "
                "`knoll down`, or name another folder with --data"
            ) from error
        file.truncate(0)
        file.write(json.dumps({"pid": os.getpid(), "environment": dict(environment)}))
        file.flush()
        yield
        # Not after a failure to clean up: `knoll down` tries again.
        (data / _FILE).unlink(missing_ok=True)


def find(data: Path) -> Run | None:
    """The `knoll up` that has this folder, or had it and did not end by itself."""
    try:
        with (data / _FILE).open() as file:
            alive = _is_held(file.fileno())
            found = json.load(file)
    except (FileNotFoundError, ValueError):
        return None
    return Run(int(found["pid"]), found["environment"], alive)


def forget(data: Path) -> None:
    """Nothing is left of the run that had this folder."""
    (data / _FILE).unlink(missing_ok=True)


def _is_held(file: int) -> bool:
    try:
        fcntl.flock(file, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    return False
