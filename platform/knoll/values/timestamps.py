"""Times as Kubernetes writes them. Pure."""

from datetime import UTC, datetime


def timestamp(seconds: float) -> str:
    """Return a time as `metav1.Time` writes it: RFC 3339, UTC, cut to whole seconds.

    Args:
        seconds: since the epoch.
    """
    return datetime.fromtimestamp(seconds // 1, UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
