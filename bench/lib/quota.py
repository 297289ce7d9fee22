"""Limits the CPU time of a process, with control groups of version 1 or 2."""

import contextlib
import os
from collections.abc import Iterator
from pathlib import Path

_ROOT = Path("/sys/fs/cgroup")
_PERIOD_US = 10_000
"""Short, so that a process waits for milliseconds only once its quota is used; a quota is at least 1 ms."""


@contextlib.contextmanager
def bounded(pid: int, part: float) -> Iterator[None]:
    """Limit a process with all its threads to this share of one core. Needs root.

    Args: part: 0 to 1.
    """
    quota = int(part * _PERIOD_US)
    unified = (_ROOT / "cgroup.controllers").exists()
    parent = _ROOT if unified else _ROOT / "cpu"
    group = parent / f"knoll-bench-{os.getpid()}-{pid}"
    if unified:
        (parent / "cgroup.subtree_control").write_text("+cpu")
    group.mkdir()
    try:
        if unified:
            (group / "cpu.max").write_text(f"{quota} {_PERIOD_US}")
        else:
            (group / "cpu.cfs_period_us").write_text(str(_PERIOD_US))
            (group / "cpu.cfs_quota_us").write_text(str(quota))
        (group / "cgroup.procs").write_text(str(pid))
        yield
    finally:
        with contextlib.suppress(OSError):  # it has ended
            (parent / "cgroup.procs").write_text(str(pid))
        group.rmdir()
