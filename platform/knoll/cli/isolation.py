"""What `knoll doctor` says of the engine's isolation of instances from the machine and from each other."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

LEAST_INOTIFY = 8192
"""Of `fs.inotify.max_user_instances`: without user namespaces all instances that run as one user share it."""
_INOTIFY = Path("/proc/sys/fs/inotify/max_user_instances")
REMAP = (
    'set "userns-remap": "default" in /etc/docker/daemon.json and restart Docker (images and volumes of before are not '
    "seen then: apply and build anew), so that root in an instance is nobody on the machine"
)


def user_namespaces(info: Mapping[str, Any]) -> tuple[str, str]:
    """What there is, and what to do about it (empty for nothing). Pure. Args: info: of the engine's `GET /info`."""
    options: Sequence[str] = info.get("SecurityOptions") or ()
    names = [dict(part.partition("=")[::2] for part in option.split(",")).get("name") for option in options]
    if "rootless" in names:
        return "the engine runs without root", ""
    if "userns" in names:
        return "users of instances are mapped to users without rights on the machine", ""
    return "root in an instance is root on the machine, held by capabilities and filters alone", REMAP


def inotify(limit: int | None, mapped: bool) -> tuple[str, str]:
    """As `user_namespaces`. Pure. Args: limit: of the kernel for one user; None when it has none to tell."""
    if limit is None:
        return "this kernel tells no limit", ""
    if mapped or limit >= LEAST_INOTIFY:
        return f"{limit} inotify instances for a user", ""
    told = f"{limit} inotify instances for a user, which all instances that run as the same user share"
    return told, f"raise it: sysctl fs.inotify.max_user_instances={LEAST_INOTIFY}"


def inotify_limit() -> int | None:
    """`fs.inotify.max_user_instances` of this machine."""
    try:
        return int(_INOTIFY.read_text())
    except (OSError, ValueError):
        return None
