"""What one socket of the engine proxy allows, and how a call is refused. Pure."""

from dataclasses import dataclass
from enum import Enum

from knoll.values.errors import KnollError

AUTOSCALER, BUILDER = "autoscaler", "builder"
PLATFORM_LABEL = "knoll.dev/platform"
CAPABILITIES = frozenset({
    "AUDIT_WRITE", "CHOWN", "DAC_OVERRIDE", "FOWNER", "FSETID", "KILL", "MKNOD", "NET_BIND_SERVICE", "NET_RAW",
    "SETFCAP", "SETGID", "SETPCAP", "SETUID", "SYS_CHROOT",
})  # fmt: skip
"""Docker's default capabilities; a container gets others only if the operator allows them."""


class RefusedError(KnollError):
    """The call is not allowed; the message says which and why."""

    code, reason = 403, "Forbidden"


class MissingError(RefusedError):
    """The target does not exist. The call is not forwarded: by then another platform may have created the target."""

    code, reason = 404, "NotFound"


class PathTarget(Enum):
    """Kind of object that the name in a path must refer to."""

    NONE = "unchecked"
    CONTAINER = "a container of this platform"
    EXEC = "a command in a container of this platform"
    VOLUME = "a volume of this platform"
    NETWORK = "a network of this platform"
    SERVICE = "a reservation of this platform"


@dataclass(frozen=True, slots=True)
class ProxyPolicy:
    """What one proxy socket allows."""

    role: str
    """AUTOSCALER or BUILDER."""
    platform: str
    network: str
    """Name of the instance network."""
    capabilities: frozenset[str] = CAPABILITIES
    swarm: bool = False
    """Whether the platform runs on several machines, in one Docker Swarm."""
