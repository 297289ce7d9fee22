"""Keeping forked processes running. What was loaded before is theirs too, and takes its memory once."""

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
    """0 while it does not run."""
    began: float = 0.0
    pause: float = 0.0
    due: float = 0.0
    """When it is to be started, if it does not run."""


def keep_running(runs: Mapping[str, Callable[[], None]]) -> None:
    """Run each in a process of its own, again whenever it ends, until SIGTERM or SIGINT; then end all of them.

    No thread may run and no event loop: a fork would have them half.

    Args: runs: a short name, shown by `ps -o comm`, and what to run.
    """
    forks = [_Fork(name, run) for name, run in runs.items()]
    # What is there now stays: a look at it by the collector would write to every page, and no page would be shared.
    gc.collect()
    gc.freeze()
    signal.pthread_sigmask(signal.SIG_BLOCK, _OURS)
    while True:
        for fork in forks:
            if not fork.pid and fork.due <= time.monotonic():
                _start(fork)
        told = signal.sigtimedwait(_OURS, _until_next(forks))
        _reap(forks)
        if told and told.si_signo != signal.SIGCHLD:
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
        os._exit(code)  # never back into the loop above


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
                log.warning("process ended, starting it again", child=fork.name, exit_code=code, in_seconds=fork.pause)


def _end(forks: list[_Fork]) -> None:
    running = [fork for fork in forks if fork.pid]
    for fork in running:
        os.kill(fork.pid, signal.SIGTERM)
    deadline = time.monotonic() + GRACE_SECONDS
    while running and time.monotonic() < deadline:
        signal.sigtimedwait({signal.SIGCHLD}, max(0.0, deadline - time.monotonic()))
        running = [fork for fork in running if not os.waitpid(fork.pid, os.WNOHANG)[0]]
    for fork in running:
        # The whole group: what it started must not outlive it.
        with contextlib.suppress(ProcessLookupError):
            os.killpg(fork.pid, signal.SIGKILL)
        os.waitpid(fork.pid, 0)
