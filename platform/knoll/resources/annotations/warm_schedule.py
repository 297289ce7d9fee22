"""Warm windows: recurring times at which a Revision keeps a minimum of instances, whatever its load. Pure.

The annotation `knoll.dev/warm-schedule` holds one or more windows, separated by `;`:

    MINUTE HOUR DAY-OF-MONTH MONTH DAY-OF-WEEK [TIME ZONE] DURATION min-scale=N

as in `0 8 * * mon-fri Europe/Berlin 10h min-scale=2`. The first five fields are those of cron; the time zone is an IANA
name, by default UTC; a window opens when cron would start a job and stays open for DURATION. Where windows overlap, the
largest min-scale applies; `autoscaler/decision/kpa.py` takes it as a minimum. A start that is skipped by the change to
daylight saving time happens at the change (as with Debian's cron); one that is repeated by the change back happens
once.
"""

import zoneinfo
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime

from cronsim import CronSim, CronSimError

from knoll.values.duration import parse_duration
from knoll.values.numbers import INT32_MAX, WHOLE

LONGEST = 31 * 86400
"""Maximum length of a window in seconds; min-scale serves for anything longer."""
SHORTEST = 60
_MIN_SCALE = "min-scale="
_SHAPE = "MINUTE HOUR DAY-OF-MONTH MONTH DAY-OF-WEEK [TIME ZONE] DURATION min-scale=N"
_EXAMPLE = "0 8 * * mon-fri Europe/Berlin 10h min-scale=2"
FAR = 3600.0
"""Maximum seconds for which a result is valid: clocks are adjusted, and time zones get new rules."""


@dataclass(frozen=True, slots=True)
class WarmWindow:
    """One window."""

    cron: str
    """Five fields."""
    zone: str
    """IANA name."""
    seconds: float
    """How long the window stays open."""
    min_scale: int

    def last_begin(self, now: float) -> float | None:
        """The latest start not after `now`; epoch seconds."""
        moment = datetime.fromtimestamp(int(now) + 1, zoneinfo.ZoneInfo(self.zone))
        return _first(CronSim(self.cron, moment, reverse=True))

    def next_begin(self, now: float) -> float | None:
        """The first start after `now`; epoch seconds."""
        moment = datetime.fromtimestamp(int(now), zoneinfo.ZoneInfo(self.zone))
        return _first(CronSim(self.cron, moment))


@dataclass(frozen=True, slots=True)
class Warmth:
    """The minimum number of instances that windows require at a time."""

    min_scale: int
    """0 while no window is open."""
    until: float
    """Epoch seconds until which `min_scale` does not change; later than the requested time."""


def warmth(windows: Sequence[WarmWindow], now: float) -> Warmth:
    """Return the minimum number of instances that windows require.

    Args:
        now: epoch seconds.
    """
    least, until = 0, now + FAR
    for window in windows:
        begin, after = window.last_begin(now), window.next_begin(now)
        if begin is not None and now < begin + window.seconds:
            least = max(least, window.min_scale)
            until = min(until, begin + window.seconds)
        if after is not None:
            until = min(until, after)
    return Warmth(least, until)


def parse_windows(text: str) -> tuple[WarmWindow, ...]:
    """Parse the annotation.

    Raises:
        ValueError: it is invalid; the message names the field and the expected form.
    """
    parts = [part.strip() for part in text.split(";")]
    if parts[-1] == "" and len(parts) > 1:
        parts.pop()
    return tuple(_window(part) for part in parts)


def _window(text: str) -> WarmWindow:
    fields = text.split()
    if not 7 <= len(fields) <= 8:
        raise ValueError(f'"{text}" does not have the form {_SHAPE}, as in "{_EXAMPLE}"')
    cron, rest = " ".join(fields[:5]), fields[5:]
    zone = rest.pop(0) if len(rest) == 3 else "UTC"
    _check_zone(zone)
    _check_cron(cron)
    return WarmWindow(cron, zone, _seconds(rest[0]), _number(rest[1]))


def _check_zone(zone: str) -> None:
    try:
        zoneinfo.ZoneInfo(zone)
    except (ValueError, OSError, zoneinfo.ZoneInfoNotFoundError):
        raise ValueError(f'unknown time zone "{zone}": use an IANA name such as Europe/Berlin or UTC') from None


def _check_cron(cron: str) -> None:
    try:
        begins = _first(CronSim(cron, datetime(2024, 1, 1, tzinfo=UTC)))
    except CronSimError as problem:
        reason = str(problem)[:1].lower() + str(problem)[1:]
        raise ValueError(f'"{cron}" is not a cron expression with five fields: {reason}') from None
    if begins is None:
        raise ValueError(f'"{cron}" never matches a date')


def _seconds(text: str) -> float:
    try:
        seconds = float(parse_duration(text))
    except ValueError as problem:
        raise ValueError(f'"{text}" is not a duration such as 10h or 90m: {problem}') from None
    if not SHORTEST <= seconds <= LONGEST:
        raise ValueError(
            f"the duration must be between 1m and 744h, not {text}; use min-scale to keep instances at all times"
        )
    return seconds


def _number(text: str) -> int:
    value = text.removeprefix(_MIN_SCALE)
    if not text.startswith(_MIN_SCALE) or not WHOLE.fullmatch(value) or not 1 <= int(value) <= INT32_MAX:
        raise ValueError(f'"{text}" is not {_MIN_SCALE}N with a whole number N of at least 1')
    return int(value)


def _first(begins: Iterator[datetime]) -> float | None:
    begin = next(begins, None)
    return begin.timestamp() if begin else None
