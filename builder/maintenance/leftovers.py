"""Names that nothing needs any more, and since when. Pure."""

from collections.abc import Iterable

KEEP_SECONDS = 600.0
"""How long a name is kept after it was first seen without a need: on several machines, another one may be about to need
it, and neither the time of a pull nor the pause of look-ups is known across machines."""


class Leftovers:
    """Remembers when the clean-up of one place first saw each name without a need."""

    def __init__(self, keep_seconds: float = KEEP_SECONDS) -> None:
        self._keep_seconds = keep_seconds
        self._since: dict[str, float] = {}

    def due(self, unneeded: Iterable[str], now: float) -> list[str]:
        """Return the names that have not been needed for long enough. Names that are needed again start anew.

        Args:
            unneeded: all names that nothing needs now.
            now: seconds, on any clock.
        """
        self._since = {name: self._since.get(name, now) for name in unneeded}
        return sorted(name for name, since in self._since.items() if since <= now - self._keep_seconds)
