"""Keeping child processes running: used by `knoll up` and by the processes that have worker processes."""

import asyncio
import contextlib
import ctypes
import os
import signal
import sys
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass, field

import structlog

log = structlog.get_logger()

STEADY_SECONDS = 10.0
"""A child that ran this long starts again at once when it dies; one that did not waits, twice as long each time."""
FIRST_PAUSE, LONGEST_PAUSE = 0.2, 10.0
REST_SECONDS = 1.0
"""For the rest of a child's output after its end."""

MAX_LINE_BYTES = 1 << 20

_PR_SET_PDEATHSIG = 1
_libc = ctypes.CDLL(None, use_errno=True) if sys.platform == "linux" else None


@dataclass(frozen=True, slots=True)
class Child:
    """One process to keep running."""

    name: str
    command: Sequence[str]
    environment: Mapping[str, str] = field(default_factory=dict)
    """Added to this process's own."""
    grace_seconds: float = 30.0
    """From SIGTERM to SIGKILL."""
    on_line: Callable[[str, str], None] | None = None
    """Gets (name, line) of its output; None lets it share ours."""
    recover: Callable[[], Awaitable[None]] | None = None
    """Called before each new start after a death."""


def next_pause(pause: float, ran_seconds: float) -> float:
    """Seconds to wait before the next start, from the last pause and how long the child ran."""
    return FIRST_PAUSE if ran_seconds >= STEADY_SECONDS else min(LONGEST_PAUSE, max(FIRST_PAUSE, pause * 2))


async def keep_running(child: Child, stop: asyncio.Event) -> int:
    """Run a child, start it again whenever it dies, and end it when `stop` is set.

    The child gets a process group of its own: Ctrl-C at the terminal reaches only us, and we decide the order of the
    end. Returns its last exit code.
    """
    pause, loop = 0.0, asyncio.get_running_loop()
    while True:
        began = loop.time()
        code = await _run_once(child, stop)
        if stop.is_set():
            return code
        pause = next_pause(pause, loop.time() - began)
        log.warning("process ended, starting it again", child=child.name, exit_code=code, in_seconds=pause)
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(stop.wait(), pause)
            return code
        if child.recover:
            await child.recover()


async def _run_once(child: Child, stop: asyncio.Event) -> int:
    # A pipe of our own: asyncio's would keep `wait` waiting until whatever the child started has closed it too.
    ours, theirs = os.pipe() if child.on_line else (None, None)
    try:
        process = await asyncio.create_subprocess_exec(
            *child.command,
            env={**os.environ, **child.environment},
            stdin=asyncio.subprocess.DEVNULL,
            stdout=theirs,
            stderr=theirs,
            process_group=0,
            preexec_fn=end_with_parent,
        )
    except BaseException:
        if ours is not None:
            os.close(ours)
        raise
    finally:
        if theirs is not None:
            os.close(theirs)
    reader = None if ours is None else asyncio.create_task(_pass_on(child, ours))
    ended, stopping = asyncio.create_task(process.wait()), asyncio.create_task(stop.wait())
    try:
        await asyncio.wait({ended, stopping}, return_when=asyncio.FIRST_COMPLETED)
        if not ended.done():
            process.send_signal(signal.SIGTERM)
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(asyncio.shield(ended), child.grace_seconds)
        return await ended if ended.done() else await _kill(process)
    finally:
        stopping.cancel()
        if process.returncode is None:
            await _kill(process)
        if reader:
            # What the child started may hold its output open for longer than the child lived.
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(reader, REST_SECONDS)


def end_with_parent() -> None:
    """Called in a child, as its first act: end with its parent, however it went.

    Killed, not asked: all of them are ended at once then, and one that waits for another to answer would stay for ever.

    Linux alone knows how; elsewhere a child that outlives its parent has to be found and ended.
    """
    if _libc is not None:
        _libc.prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)


async def _kill(process: asyncio.subprocess.Process) -> int:
    """The whole group: what the child started must not outlive it."""
    with contextlib.suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGKILL)
    return await process.wait()


async def _pass_on(child: Child, source: int) -> None:
    assert child.on_line is not None
    lines = asyncio.StreamReader(limit=MAX_LINE_BYTES)
    transport, _ = await asyncio.get_running_loop().connect_read_pipe(
        lambda: asyncio.StreamReaderProtocol(lines), os.fdopen(source, "rb", buffering=0)
    )
    try:
        while line := await lines.readline():
            child.on_line(child.name, line.decode(errors="replace").rstrip("\n"))
    finally:
        transport.close()
