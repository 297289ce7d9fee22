"""What the autoscaler reports to the API about each instance, for its Pod. Pure."""

from typing import Literal

import msgspec

INSTANCES = "instances"
"""Name of the table of `RevisionInstances`. Field: `namespace/name` of the Revision, absent while it has no instance.
Writer: the leading autoscaler."""

FINALIZER = "knoll.dev/instance"
"""Finalizer of a Pod, which keeps it until its instance has been removed."""

Stage = Literal["starting", "ready", "unready", "draining", "paused", "stopped"]
"""`paused` and `stopped` are idle states: the instance is resumed by the next request that needs it."""


class ContainerEnd(msgspec.Struct, frozen=True):
    """How a container's last run ended."""

    exit_code: int
    reason: str
    """`Completed`, `Error` or `OOMKilled`."""
    at: float
    """Epoch seconds."""


class ContainerRow(msgspec.Struct, frozen=True, omit_defaults=True):
    """One container of an instance."""

    name: str
    image: str
    """As used for the start: by digest, if there is one."""
    running: bool
    ready: bool
    restarts: int = 0
    started: float = 0.0
    """Epoch seconds of its last start; 0 if it has not been started yet."""
    reason: str = ""
    """Why it is not running: `ContainerCreating`, `ErrImagePull`, `CrashLoopBackOff` and others; empty if it is."""
    message: str = ""
    last: ContainerEnd | None = None
    """How the previous run ended."""


class InstanceEvent(msgspec.Struct, frozen=True):
    """An event of an instance, reported as an Event of its Pod."""

    type: Literal["Normal", "Warning"]
    reason: str
    """`Unhealthy`, `Killing`, `BackOff`, `Evicted`, `Failed` or `Started`, as kubelet's."""
    message: str
    count: int = 1
    """Number of occurrences."""


class InstanceRow(msgspec.Struct, frozen=True):
    """One instance, from the decision to start it until its removal."""

    name: str
    """Also the name of the Pod and the host name of the containers."""
    address: str
    """IP address on the instance network; empty until the instance has a sandbox."""
    port: int
    stage: Stage
    created: float
    """Epoch seconds."""
    containers: tuple[ContainerRow, ...]
    since: float = 0.0
    """Epoch seconds since when it rests; 0 while it does not."""
    memory_bytes: int = 0
    """Memory that it keeps while it is paused."""
    events: tuple[InstanceEvent, ...] = ()
    """The most recent ones, by time of last occurrence."""
    node: str = ""
    """Name of its node; empty on a single machine."""


class RevisionInstances(msgspec.Struct, frozen=True):
    """All instances of a Revision, by name."""

    uid: str
    """uid of the Revision object; another uid means an entry of an earlier object of that name."""
    instances: tuple[InstanceRow, ...]
