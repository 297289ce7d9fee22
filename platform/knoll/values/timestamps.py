"""Timestamps in Kubernetes' format. Pure."""

from datetime import UTC, datetime


def timestamp(seconds: float) -> str:
    """Format a time like `metav1.Time`: RFC 3339, UTC, truncated to whole seconds.

    Args:
        seconds: since the epoch.
    """
    return datetime.fromtimestamp(seconds // 1, UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
