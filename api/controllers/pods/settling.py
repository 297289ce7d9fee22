"""Keys that change several times in quick succession, each handled once when its changes are over. Pure."""


class SettlingKeys:
    """A key is due once it has not changed for a while, or has waited for long. Times are seconds on any clock."""

    def __init__(self, longest: float) -> None:
        """Args: longest: time after its first change after which a key is due in any case."""
        self._longest = longest
        self._due: dict[str, tuple[float, float]] = {}
        """By key, when it is due and when at the latest."""

    def __len__(self) -> int:
        return len(self._due)

    def changed(self, key: str, now: float, quiet: float) -> None:
        """Args: quiet: time without a further change after which the key is due."""
        _, latest = self._due.get(key, (now, now + self._longest))
        self._due[key] = (min(now + quiet, latest), latest)

    def forget(self, key: str) -> None:
        """Called when a key was handled in another way."""
        self._due.pop(key, None)

    def next_due(self) -> float | None:
        """When the next key is due; None without keys."""
        return min((at for at, _ in self._due.values()), default=None)

    def take(self, now: float) -> list[str]:
        """Remove and return the keys that are due, those that changed first before the others."""
        due = [key for key, (at, _) in self._due.items() if at <= now]
        for key in due:
            del self._due[key]
        return due
