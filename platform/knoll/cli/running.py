"""The lock of a state folder: one `knoll up` at a time uses it, and `knoll down` finds that process."""

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
    """Another `knoll up` uses the folder."""


@dataclass(frozen=True, slots=True)
class Run:
    """A `knoll up`, alive or dead."""

    pid: int
    environment: Mapping[str, str]
    """Environment variables that its processes were started with."""
    alive: bool


@contextlib.contextmanager
def lock(data: Path, environment: Mapping[str, str]) -> Iterator[None]:
    """Lock the folder for this process, and store in it what `knoll down` needs.

    Raises: AlreadyRunningError.
    """
    with (data / _FILE).open("a+") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            run = find(data)
            raise AlreadyRunningError(
                f"`knoll up` is already running in {data}{f' (process {run.pid})' if run else ''}: stop it with "
                "`knoll down`, or use another folder with --data"
            ) from error
        file.truncate(0)
        file.write(json.dumps({"pid": os.getpid(), "environment": dict(environment)}))
        file.flush()
        yield
        # Kept after a failed clean-up, so that `knoll down` can try again.
        (data / _FILE).unlink(missing_ok=True)


def find(data: Path) -> Run | None:
    """Return the `knoll up` that uses this folder, or that was killed while it did."""
    try:
        with (data / _FILE).open() as file:
            alive = _is_locked(file.fileno())
            record = json.load(file)
    except (FileNotFoundError, ValueError):
        return None
    return Run(int(record["pid"]), record["environment"], alive)


def forget(data: Path) -> None:
    """Remove the record of the last run in this folder."""
    (data / _FILE).unlink(missing_ok=True)


def _is_locked(file: int) -> bool:
    try:
        fcntl.flock(file, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    return False
