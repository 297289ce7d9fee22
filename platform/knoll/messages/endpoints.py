"""The endpoint table: where the instances of each revision take requests. Pure.

The leading autoscaler writes one `RevisionEndpoints` for each Revision into the table `ENDPOINTS`, which activators
follow.
"""

from typing import Literal

import msgspec

ENDPOINTS = "endpoints"
"""Name of the table of `RevisionEndpoints`. Field: `namespace/name` of the Revision. Writer: the leading autoscaler."""


class StartTiming(msgspec.Struct, frozen=True):
    """Times of the start of an instance; epoch seconds on the autoscaler's clock."""

    requested: float = msgspec.field(name="wanted")
    """The scaling decision or the poke that requested it."""
    scheduled: float
    """It had a sandbox, and its containers were requested from the engine."""
    started: float
    """The engine reported the app's process as running."""
    ready: float
    """The readiness probe succeeded."""


class Endpoint(msgspec.Struct, frozen=True, omit_defaults=True):
    """One instance that serves requests or is draining."""

    id: str
    """Name of the instance, of its Pod, and hostname of its containers."""
    host: str
    """IP address on the instance network."""
    port: int
    state: Literal["ready", "draining"] = "ready"
    """`draining`: gets no new requests and finishes those in flight."""
    timing: StartTiming | None = None
    node: str = ""
    """Name of the node that runs it; empty on a single machine. `host` can be reached from that node alone."""


class RevisionEndpoints(msgspec.Struct, frozen=True):
    """All instances of a revision that activators may use; empty at scale zero."""

    endpoints: tuple[Endpoint, ...] = ()
