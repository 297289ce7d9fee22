"""Warm windows: times of the week at which a Revision keeps instances, whatever its load. Pure.

The annotation `knoll.dev/warm-schedule` holds one or more windows, parted by `;`:

    MINUTE HOUR DAY-OF-MONTH MONTH DAY-OF-WEEK [TIME ZONE] DURATION min-scale=N

as in `0 8 * * mon-fri Europe/Berlin 10h min-scale=2`. The first five are cron's; the time zone is an IANA name, UTC
unless given; each window begins when cron would start a job and is open for DURATION. Where windows overlap, the
largest number counts. A begin that the change to summer time skips is at the change (as Debian's cron does it); one
that the change back repeats counts once.
"""

import zoneinfo
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime

from cronsim import CronSim, CronSimError

from knoll.resources.models.base import INT32_MAX
from knoll.values.duration import parse_duration
from knoll.values.numbers import WHOLE

LONGEST = 31 * 86400
"""Seconds that one window may be open: who wants more wants min-scale."""
SHORTEST = 60
_MIN_SCALE = "min-scale="
_SHAPE = "MINUTE HOUR DAY-OF-MONTH MONTH DAY-OF-WEEK [TIME ZONE] DURATION min-scale=N"
_EXAMPLE = "0 8 * * mon-fri Europe/Berlin 10h min-scale=2"
FAR = 3600.0
"""Seconds after which a number is asked for again at the latest: clocks are set, time zones get new rules."""


@dataclass(frozen=True, slots=True)
class WarmWindow:
    """One window."""

    cron: str
    """Five fields."""
    zone: str
    """IANA name."""
    seconds: float
    """How long it is open, from each begin."""
    min_scale: int

    def last_begin(self, now: float) -> float | None:
        """The newest begin up to `now`, that moment included; epoch seconds."""
        moment = datetime.fromtimestamp(int(now) + 1, zoneinfo.ZoneInfo(self.zone))
        return _first(CronSim(self.cron, moment, reverse=True))

    def next_begin(self, now: float) -> float | None:
        """The first begin after `now`."""
        moment = datetime.fromtimestamp(int(now), zoneinfo.ZoneInfo(self.zone))
        return _first(CronSim(self.cron, moment))


@dataclass(frozen=True, slots=True)
class Warmth:
    """What windows want at a time."""

    min_scale: int
    """0 while no window is open."""
    until: float
    """Epoch seconds: it stays so until then, at least; after the time that was asked for."""


def warmth(windows: Sequence[WarmWindow], now: float) -> Warmth:
    """Say what windows want.

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
    """Read the annotation.

    Raises:
        ValueError: it cannot be read; says where and how it should be.
    """
    parts = [part.strip() for part in text.split(";")]
    if parts[-1] == "" and len(parts) > 1:
        parts.pop()
    return tuple(_window(part) for part in parts)


def _window(text: str) -> WarmWindow:
    fields = text.split()
    if not 7 <= len(fields) <= 8:
        raise ValueError(f'"{text}" is not of the form {_SHAPE}, as in "{_EXAMPLE}"')
    cron, rest = " ".join(fields[:5]), fields[5:]
    zone = rest.pop(0) if len(rest) == 3 else "UTC"
    _check_zone(zone)
    _check_cron(cron)
    return WarmWindow(cron, zone, _seconds(rest[0]), _number(rest[1]))


def _check_zone(zone: str) -> None:
    try:
        zoneinfo.ZoneInfo(zone)
    except (ValueError, OSError, zoneinfo.ZoneInfoNotFoundError):
        raise ValueError(f'there is no time zone "{zone}": give an IANA name such as Europe/Berlin or UTC') from None


def _check_cron(cron: str) -> None:
    try:
        begins = _first(CronSim(cron, datetime(2024, 1, 1, tzinfo=UTC)))
    except CronSimError as problem:
        reason = str(problem)[:1].lower() + str(problem)[1:]
        raise ValueError(f'"{cron}" is not a cron expression of five fields: {reason}') from None
    if begins is None:
        raise ValueError(f'"{cron}" never comes')


def _seconds(text: str) -> float:
    try:
        seconds = float(parse_duration(text))
    except ValueError as problem:
        raise ValueError(f'"{text}" is not a duration such as 10h or 90m: {problem}') from None
    if not SHORTEST <= seconds <= LONGEST:
        raise ValueError(f"a window is open for 1m to 744h, not for {text}; for always there is min-scale")
    return seconds


def _number(text: str) -> int:
    value = text.removeprefix(_MIN_SCALE)
    if not text.startswith(_MIN_SCALE) or not WHOLE.fullmatch(value) or not 1 <= int(value) <= INT32_MAX:
        raise ValueError(f'"{text}" is not {_MIN_SCALE}N with a whole number N from 1 on')
    return int(value)


def _first(begins: Iterator[datetime]) -> float | None:
    begin = next(begins, None)
    return begin.timestamp() if begin else None
