"""Limits the Events about changes of a Revision's scale, so that a flapping Revision does not flood them. Pure."""

from dataclasses import dataclass

from knoll.messages.scale import ScaleChange, ScaleStatus

BURST = 5
"""Events of one Revision that may follow each other without a pause."""
REFILL_SECONDS = 60.0
"""Time after which one more Event is allowed, in seconds."""


@dataclass(slots=True)
class _Reported:
    uid: str
    last: ScaleChange | None
    tokens: float
    at: float
    silent: int = 0
    """Changes without an Event since the last Event."""


class ScaleEvents:
    """A token bucket for each Revision."""

    def __init__(self) -> None:
        self._reported: dict[str, _Reported] = {}

    def mark_reported(self, key: str, status: ScaleStatus, now: float) -> None:
        """Treat the current scale of a Revision as reported."""
        self._reported[key] = _Reported(status.uid, _last(status), BURST, now)

    def forget(self, key: str) -> None:
        self._reported.pop(key, None)

    def next_message(self, key: str, status: ScaleStatus, now: float) -> str | None:
        """Return the message about a Revision's newest change; None if there is none, or the limit is reached.

        Args:
            key: `namespace/name` of the Revision.
            now: seconds, on a monotonic clock.
        """
        reported = self._reported.get(key)
        if reported is None or reported.uid != status.uid:
            # The first change of a new Revision is its initial scale, which its conditions report.
            reported = self._reported[key] = _Reported(
                status.uid, status.changes[0] if status.changes else None, BURST, now
            )
        newest = _last(status)
        if newest is None or newest == reported.last:
            return None
        if reported.last is None:
            reported.last = newest
            return None
        before, reported.last = reported.last, newest
        reported.tokens = min(BURST, reported.tokens + max(0.0, now - reported.at) / REFILL_SECONDS)
        reported.at = now
        if newest.want == before.want:
            return None
        if reported.tokens < 1:
            reported.silent += 1
            return None
        reported.tokens -= 1
        more = f" ({reported.silent} earlier changes were not reported)" if reported.silent else ""
        reported.silent = 0
        return f"Scaled from {before.want} to {newest.want} instances: {newest.why}{more}"


def _last(status: ScaleStatus) -> ScaleChange | None:
    return status.changes[-1] if status.changes else None
