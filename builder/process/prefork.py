"""Keeps forked processes running. They share the memory of what was loaded before the fork."""

import contextlib
import ctypes
import gc
import os
import signal
import sys
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass

import structlog

from knoll.process.supervise import end_with_parent, next_pause

log = structlog.get_logger()

GRACE_SECONDS = 30.0
"""From SIGTERM to SIGKILL."""
LONGEST_WAIT = 3600.0
_OURS = {signal.SIGCHLD, signal.SIGTERM, signal.SIGINT}
_PR_SET_NAME = 15


@dataclass(slots=True)
class _Fork:
    name: str
    run: Callable[[], None]
    pid: int = 0
    """0 while it is not running."""
    began: float = 0.0
    pause: float = 0.0
    due: float = 0.0
    """Monotonic time of its next start, while it is not running."""


def keep_running(runs: Mapping[str, Callable[[], None]]) -> None:
    """Run each in its own process, and restart it when it ends, until SIGTERM or SIGINT; then end all of them.

    There must be no other thread and no event loop: a fork would copy them in an inconsistent state.

    Args: runs: entry points by short name, which `ps -o comm` shows.
    """
    forks = [_Fork(name, run) for name, run in runs.items()]
    # Excluded from garbage collection, which would write to every page with objects, and the page would not be shared.
    gc.collect()
    gc.freeze()
    signal.pthread_sigmask(signal.SIG_BLOCK, _OURS)
    while True:
        for fork in forks:
            if not fork.pid and fork.due <= time.monotonic():
                _start(fork)
        received = signal.sigtimedwait(_OURS, _until_next(forks))
        _reap(forks)
        if received and received.si_signo != signal.SIGCHLD:
            return _end(forks)


def _start(fork: _Fork) -> None:
    fork.pid, fork.began = os.fork(), time.monotonic()
    if fork.pid:
        return
    code = 1
    try:
        end_with_parent()
        os.setpgid(0, 0)
        signal.pthread_sigmask(signal.SIG_UNBLOCK, _OURS)
        if sys.platform == "linux":
            ctypes.CDLL(None).prctl(_PR_SET_NAME, fork.name.encode()[:15])
        fork.run()
        code = 0
    except SystemExit as error:
        code = error.code if isinstance(error.code, int) else 1
    except BaseException:
        log.exception("process failed", child=fork.name)
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(code)  # never return into the loop of the parent


def _until_next(forks: list[_Fork]) -> float:
    return max(0.0, min([LONGEST_WAIT, *(fork.due - time.monotonic() for fork in forks if not fork.pid)]))


def _reap(forks: list[_Fork]) -> None:
    for fork in forks:
        if fork.pid:
            pid, status = os.waitpid(fork.pid, os.WNOHANG)
            if pid:
                now = time.monotonic()
                fork.pid, fork.pause = 0, next_pause(fork.pause, now - fork.began)
                fork.due = now + fork.pause
                code = os.waitstatus_to_exitcode(status)
                log.warning("process ended", child=fork.name, exit_code=code, restart_in_seconds=fork.pause)


def _end(forks: list[_Fork]) -> None:
    running = [fork for fork in forks if fork.pid]
    for fork in running:
        os.kill(fork.pid, signal.SIGTERM)
    deadline = time.monotonic() + GRACE_SECONDS
    while running and time.monotonic() < deadline:
        signal.sigtimedwait({signal.SIGCHLD}, max(0.0, deadline - time.monotonic()))
        running = [fork for fork in running if not os.waitpid(fork.pid, os.WNOHANG)[0]]
    for fork in running:
        # The whole process group: its children must not outlive it.
        with contextlib.suppress(ProcessLookupError):
            os.killpg(fork.pid, signal.SIGKILL)
        os.waitpid(fork.pid, 0)
