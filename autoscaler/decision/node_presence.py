"""Whether a node that sends no heartbeats is lost with its machine, or only its autoscaler process is away. Pure.

The process of a node sends heartbeats; the activators of its machine acknowledge tables every two seconds. Without
power, both end. If only the heartbeats end, the process is restarting: its instances serve, and nothing starts or stops
there until it is back.
"""

from enum import Enum

from knoll.messages.nodes import DEAD_SECONDS

ACTIVATOR_SECONDS = DEAD_SECONDS
"""Longest silence of the activators of a machine that runs. Machines that are lost are noticed no later because of it:
when both become silent at once, both have been silent for DEAD_SECONDS at the latest then."""
ABSENT_SECONDS = 15.0
"""How long a process may be away before its instances are replaced."""


class Presence(Enum):
    """What the other nodes know of a node."""

    RESPONDING = "its process sends heartbeats"
    ABSENT = "its process is away, and its machine runs"
    LOST = "its machine does not respond, or its process is away for long"


def presence(heartbeat_age: float | None, activator_age: float | None) -> Presence:
    """Return whether a node responds.

    Args:
        heartbeat_age: seconds since its last heartbeat; None if there was none.
        activator_age: seconds since the last acknowledgement of its activators; None if there was none.
    """
    if heartbeat_age is None or heartbeat_age >= ABSENT_SECONDS:
        return Presence.LOST
    if heartbeat_age < DEAD_SECONDS:
        return Presence.RESPONDING
    machine_runs = activator_age is not None and activator_age < ACTIVATOR_SECONDS
    return Presence.ABSENT if machine_runs else Presence.LOST
