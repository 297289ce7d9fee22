"""Keeps child processes running: restarts with a growing pause, ends them with their parent, kills their group.

`keep_running` is for `knoll up`, whose children are any commands. Two other supervisors share `next_pause` and
`end_with_parent` and differ for a reason: `activator.process.workers` passes listening sockets and a control channel to
its children and replaces them without refusing connections; `builder.process.prefork` forks children that share memory,
which a process with an event loop must not do.
"""

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
"""Run time after which a child is restarted with the shortest pause; below it, the pause doubles each time."""
FIRST_PAUSE, LONGEST_PAUSE = 0.2, 10.0
"""Seconds before a restart."""
OUTPUT_SECONDS = 1.0
"""Time to read the rest of a child's output after its end."""

MAX_LINE_BYTES = 1 << 20

_PR_SET_PDEATHSIG = 1
_libc = ctypes.CDLL(None, use_errno=True) if sys.platform == "linux" else None


@dataclass(frozen=True, slots=True)
class Child:
    """A process to keep running."""

    name: str
    command: Sequence[str]
    environment: Mapping[str, str] = field(default_factory=dict)
    """Variables added to this process's environment."""
    grace_seconds: float = 30.0
    """Seconds between SIGTERM and SIGKILL."""
    on_line: Callable[[str, str], None] | None = None
    """Called with name and line of its output; None to inherit stdout and stderr."""
    recover: Callable[[], Awaitable[None]] | None = None
    """Called before each restart."""


def next_pause(pause: float, ran_seconds: float) -> float:
    """Return the seconds to wait before a restart, given the last pause and how long the child ran."""
    return FIRST_PAUSE if ran_seconds >= STEADY_SECONDS else min(LONGEST_PAUSE, max(FIRST_PAUSE, pause * 2))


async def keep_running(child: Child, stop: asyncio.Event) -> int:
    """Run a child, restart it whenever it ends, and stop it when `stop` is set; return its last exit code.

    The child has its own process group, so that Ctrl-C reaches only this process, which decides the order of shutdown.
    """
    pause, loop = 0.0, asyncio.get_running_loop()
    while True:
        began = loop.time()
        code = await _run_once(child, stop)
        if stop.is_set():
            return code
        pause = next_pause(pause, loop.time() - began)
        log.warning("process ended", child=child.name, exit_code=code, restart_in_seconds=pause)
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(stop.wait(), pause)
            return code
        if child.recover:
            await child.recover()


async def _run_once(child: Child, stop: asyncio.Event) -> int:
    # With asyncio's own pipe, `wait` would also wait for the child's descendants to close it.
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
            # Descendants of the child may keep its output open after its end.
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(reader, OUTPUT_SECONDS)


def end_with_parent() -> None:
    """Called first in a child: have the kernel kill it when its parent ends, however that happens.

    SIGKILL instead of SIGTERM, because all processes end at once then, and one that waits for a response of another
    would never end. Only Linux supports it; elsewhere a child may outlive its parent.
    """
    if _libc is not None:
        _libc.prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)


async def _kill(process: asyncio.subprocess.Process) -> int:
    """Kill the whole process group, so that descendants do not outlive the child."""
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
