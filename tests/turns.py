"""Turns between tests: those with several machines never run beside another test that needs Docker.

On a machine with two cores, three container engines and the engine of other tests slow each other down too much. The
worker processes of a run, and other runs on this machine, share two locked files.
"""

import contextlib
import fcntl
import tempfile
from collections.abc import Iterator
from pathlib import Path

QUEUE, TURN = (Path(tempfile.gettempdir()) / f"knoll-docker-{name}.lock" for name in ("queue", "turn"))


@contextlib.contextmanager
def docker_turn(*, alone: bool) -> Iterator[None]:
    """Wait until this test may run, and let others wait as long as it runs.

    Args: alone: no other may run beside it. It gets its turn: tests that come later wait behind it.
    """
    with TURN.open("w") as turn:
        with QUEUE.open("w") as queue:
            fcntl.flock(queue, fcntl.LOCK_EX)
            fcntl.flock(turn, fcntl.LOCK_EX if alone else fcntl.LOCK_SH)
        yield
