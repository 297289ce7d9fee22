"""Keeps the memory of long-running processes small: the one place that blocks imports and freezes objects.

Libraries import others when those are installed: structlog imports rich, for colours in tracebacks, and uvicorn imports
watchfiles, for reloading. The command line needs both, so they are installed, and no option of structlog or uvicorn
turns these imports off. Blocking them is the only way left: a process that imports structlog and uvicorn takes 27.5 MB
instead of 33.0 MB then (resident set, CPython 3.11 on amd64), and every long-running process imports both.

What this package itself does not need is not imported, or imported where it is first used; that needs no help.
"""

import gc
import sys

UNUSED = ("rich", "watchfiles")


def block_unused_imports() -> None:
    """Block `UNUSED`. To be called before any other import."""
    block_imports(*UNUSED)


def block_imports(*names: str) -> None:
    """Make packages look as if they were not installed. Packages imported before stay."""
    for name in names:
        # The import system raises ModuleNotFoundError for a name whose entry is None:
        # https://docs.python.org/3/reference/import.html#the-module-cache
        sys.modules.setdefault(name, None)  # type: ignore[arg-type]


def freeze_gc() -> None:
    """Exclude all objects that exist now from garbage collection.

    To be called once everything is imported. Full collections are cheap then, and frequent enough for the cycles that
    ended tasks leave: the interpreter runs one only when the number of new objects exceeds a quarter of the old ones.
    """
    gc.collect()
    gc.freeze()
