"""Keeps out of a process that runs for ever what only a terminal, or somebody else's use of a library, needs.

Libraries load some others when they find them: structlog loads rich, to colour tracebacks; uvicorn loads watchfiles, to
start again when code changes. Together they cost 10 MB a process, and none of ours uses them.
"""

import gc
import sys

UNUSED = ("rich", "watchfiles")


def block_unused_imports(*more: str) -> None:
    """Make `UNUSED` look as if it were not installed. To be called before anything else is imported.

    Args: more: packages that this process has no use for either.
    """
    block_imports(*UNUSED, *more)


def block_imports(*names: str) -> None:
    """Make packages look as if they were not installed."""
    for name in names:
        # What stands in `sys.modules` as None cannot be imported: the import system's own way to say so.
        sys.modules.setdefault(name, None)  # type: ignore[arg-type]


def freeze_gc() -> None:
    """What was loaded by now stays: the collector need not look at it again.

    To be called once everything is imported. Full collections are then cheap, and the interpreter, which has one only
    when a quarter more is there than after the last, has them often enough for what dead tasks leave behind.
    """
    gc.collect()
    gc.freeze()
