"""An Event for each change of a Revision's scale, but never many: what flaps is told now and then. Pure."""

from dataclasses import dataclass

from knoll.messages.scale import Change, ScaleStatus

BURST = 5
"""Events of one Revision that may follow each other at once."""
REFILL_SECONDS = 60.0
"""Time after which there may be one more."""


@dataclass(slots=True)
class _Told:
    uid: str
    last: Change | None
    tokens: float
    at: float
    silent: int = 0
    """Changes that were not told since the last Event."""


class ScaleEvents:
    """What was told of each Revision's scale."""

    def __init__(self) -> None:
        self._told: dict[str, _Told] = {}

    def known(self, key: str, status: ScaleStatus, now: float) -> None:
        """Take what a Revision's scale is as told already."""
        self._told[key] = _Told(status.uid, _last(status), BURST, now)

    def forget(self, key: str) -> None:
        self._told.pop(key, None)

    def news(self, key: str, status: ScaleStatus, now: float) -> str | None:
        """What to tell of a Revision's newest change; None when there is none, or too many were told lately.

        Args:
            key: `namespace/name` of the Revision.
            now: seconds, on a clock that never goes back.
        """
        told = self._told.get(key)
        if told is None or told.uid != status.uid:
            # The first change of a new Revision is its initial scale, which its conditions tell.
            told = self._told[key] = _Told(status.uid, status.changes[0] if status.changes else None, BURST, now)
        newest = _last(status)
        if newest is None or newest == told.last:
            return None
        if told.last is None:
            told.last = newest
            return None
        before, told.last = told.last, newest
        told.tokens = min(BURST, told.tokens + max(0.0, now - told.at) / REFILL_SECONDS)
        told.at = now
        if newest.want == before.want:
            return None
        if told.tokens < 1:
            told.silent += 1
            return None
        told.tokens -= 1
        more = f" ({told.silent} changes before it are not told)" if told.silent else ""
        told.silent = 0
        return f"From {before.want} to {newest.want} instances: {newest.why}{more}"


def _last(status: ScaleStatus) -> Change | None:
    return status.changes[-1] if status.changes else None
