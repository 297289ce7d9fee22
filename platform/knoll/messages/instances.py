"""What the autoscaler tells the API of each instance, for the Pods that stand for them. Pure."""

from typing import Literal

import msgspec

INSTANCES = "instances"
"""Name of the table of `RevisionInstances`. Field: `namespace/name` of the Revision, absent while it has no instance.
Writer: the leading autoscaler."""

FINALIZER = "knoll.dev/instance"
"""Of a Pod: it stays, on its way out, until its instance is gone."""

Stage = Literal["starting", "ready", "unready", "draining", "paused", "stopped"]
"""`paused` and `stopped` are idle states: the instance serves no requests until one wakes it."""


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
    """As it was started: by digest, where there is one."""
    running: bool
    ready: bool
    restarts: int = 0
    started: float = 0.0
    """Epoch seconds of its last start; 0 when it was not started yet."""
    reason: str = ""
    """Why it does not run: `ContainerCreating`, `ErrImagePull`, `CrashLoopBackOff` and others; empty while it runs."""
    message: str = ""
    last: ContainerEnd | None = None
    """How the run before this one ended."""


class InstanceEvent(msgspec.Struct, frozen=True):
    """Something that happened to an instance, for an Event of its Pod."""

    type: Literal["Normal", "Warning"]
    reason: str
    """`Unhealthy`, `Killing`, `BackOff`, `Evicted` or `Failed`, as kubelet's."""
    message: str
    count: int = 1
    """How many times it happened."""


class InstanceRow(msgspec.Struct, frozen=True):
    """One instance, from the decision to start it until it is gone."""

    name: str
    """Also the Pod's, and the containers' host name."""
    address: str
    """IP address on the instance network; empty until a sandbox is in hand."""
    port: int
    stage: Stage
    created: float
    """Epoch seconds."""
    containers: tuple[ContainerRow, ...]
    since: float = 0.0
    """Epoch seconds since when it rests; 0 while it does not."""
    memory_bytes: int = 0
    """What it keeps while it is paused."""
    events: tuple[InstanceEvent, ...] = ()
    """The last ones, in the order in which they happened last."""


class RevisionInstances(msgspec.Struct, frozen=True):
    """All instances of a Revision, by name."""

    uid: str
    """uid of the Revision object; another uid means an entry of an earlier object of that name."""
    instances: tuple[InstanceRow, ...]
