"""Checks of `knoll doctor`: how the engine isolates instances from the machine and from each other."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

MIN_INOTIFY = 8192
"""Minimum of `fs.inotify.max_user_instances`, which instances of one user share without user namespaces."""
_INOTIFY = Path("/proc/sys/fs/inotify/max_user_instances")
REMAP = (
    'set "userns-remap": "default" in /etc/docker/daemon.json and restart Docker (existing images and volumes '
    "become invisible: apply and build again), so that root in an instance is an unprivileged user on the machine"
)


def user_namespaces(info: Mapping[str, Any]) -> tuple[str, str]:
    """Return the state, and a suggested fix or "". Args: info: the engine's `GET /info`."""
    options: Sequence[str] = info.get("SecurityOptions") or ()
    names = [dict(part.partition("=")[::2] for part in option.split(",")).get("name") for option in options]
    if "rootless" in names:
        return "the engine runs without root", ""
    if "userns" in names:
        return "users of instances are mapped to unprivileged users on the machine", ""
    return "root in an instance is root on the machine, limited only by capabilities and seccomp filters", REMAP


def inotify(limit: int | None, mapped: bool) -> tuple[str, str]:
    """Like `user_namespaces`. Args: limit: inotify instances per user; None if unknown."""
    if limit is None:
        return "the kernel reports no limit", ""
    if mapped or limit >= MIN_INOTIFY:
        return f"{limit} inotify instances per user", ""
    limits = f"{limit} inotify instances per user, shared by all instances that run as the same user"
    return limits, f"raise it: sysctl fs.inotify.max_user_instances={MIN_INOTIFY}"


def inotify_limit() -> int | None:
    """Return `fs.inotify.max_user_instances` of this machine; None if unknown."""
    try:
        return int(_INOTIFY.read_text())
    except (OSError, ValueError):
        return None
