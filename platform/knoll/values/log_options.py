"""The query parameters of a Pod's log, as in Kubernetes' PodLogOptions. Pure."""

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime

from knoll.values.errors import BadRequestError

TRUE, FALSE = ("true", "1"), ("false", "0", "")


@dataclass(frozen=True, slots=True)
class LogOptions:
    """The requested part of a log and its format."""

    container: str = ""
    """Empty for the only container."""
    follow: bool = False
    timestamps: bool = False
    tail: int | None = None
    since: float | None = None
    """Epoch seconds."""
    limit_bytes: int | None = None


def parse(asked: Mapping[str, str], now: float) -> LogOptions:
    """Parse the query parameters of a request.

    Args: now: epoch seconds.

    Raises: BadRequestError: a parameter has an invalid value.
    """
    if _flag(asked, "previous"):
        raise BadRequestError("previous: the output of a container's earlier runs is not kept")
    seconds, moment = _number(asked, "sinceSeconds", 1), asked.get("sinceTime", "")
    if seconds is not None and moment:
        raise BadRequestError("at most one of sinceTime or sinceSeconds may be specified")
    since = None if seconds is None else now - seconds
    if moment:
        try:
            since = datetime.fromisoformat(moment).timestamp()
        except ValueError:
            raise BadRequestError(f"sinceTime: {moment[:50]!r} is not an RFC 3339 time") from None
    return LogOptions(
        asked.get("container", ""),
        _flag(asked, "follow"),
        _flag(asked, "timestamps"),
        _number(asked, "tailLines", 0),
        since,
        _number(asked, "limitBytes", 1),
    )


def _flag(asked: Mapping[str, str], name: str) -> bool:
    value = asked.get(name, "").lower()
    if value not in (*TRUE, *FALSE):
        raise BadRequestError(f"{name}: {value[:50]!r} is neither true nor false")
    return value in TRUE


def _number(asked: Mapping[str, str], name: str, least: int) -> int | None:
    value = asked.get(name, "")
    if not value:
        return None
    if not value.isascii() or not value.isdigit() or len(value) > 18 or int(value) < least:
        raise BadRequestError(f"{name}: {value[:50]!r} is not a whole number of at least {least}")
    return int(value)
