"""Timestamps in Kubernetes' format. Pure."""

from datetime import UTC, datetime
from functools import lru_cache


def timestamp(seconds: float) -> str:
    """Format a time like `metav1.Time`: RFC 3339, UTC, truncated to whole seconds.

    Args:
        seconds: since the epoch.
    """
    return _of_second(int(seconds // 1))


@lru_cache(maxsize=64)
def _of_second(second: int) -> str:
    """Most times are of the current second, and one write has several."""
    return datetime.fromtimestamp(second, UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
