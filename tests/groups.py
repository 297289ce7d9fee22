"""Which tests may run side by side, in the worker processes of pytest-xdist.

The tests of a group run one after the other in one worker; groups run side by side in any combination. tests/README.md
says what a test may rely on.
"""

from pathlib import PurePosixPath

PLATFORM = "e2e"
"""Everything on the platform that end-to-end tests share."""
OWN_PLATFORMS = ("e2e/engine", "e2e/attacks")
"""Folders whose tests share a platform of their own."""
MACHINES = ("component/machines", "e2e/machines")
"""Folders whose tests share several machines; `turns.py` lets no other test that needs Docker run beside them."""
ORDER = (PLATFORM, *OWN_PLATFORMS, *MACHINES, "component/runtime", "component/builder", "component", "unit")
"""Starts of groups' names, those that take longest first, so that all workers end at about the same time."""


def group_of(nodeid: str) -> str:
    """Return the group of a test, such as `component/api/test_watches` or `e2e`."""
    file = PurePosixPath(nodeid.partition("::")[0]).relative_to("tests").with_suffix("")
    platforms = (*OWN_PLATFORMS, *MACHINES, PLATFORM)
    return next((platform for platform in platforms if file.is_relative_to(platform)), str(file))


def rank_of(group: str) -> int:
    """Return when a group starts: those with a lower rank start earlier."""
    starts = [start for start in ORDER if PurePosixPath(group).is_relative_to(start)]
    return ORDER.index(max(starts, key=len)) if starts else len(ORDER)
