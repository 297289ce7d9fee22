"""The endpoint table: where the instances of each revision take requests. Pure.

The leading autoscaler writes one `RevisionEndpoints` for each Revision into the table `ENDPOINTS`, which activators
follow.
"""

from typing import Literal

import msgspec

ENDPOINTS = "endpoints"
"""Name of the table of `RevisionEndpoints`. Field: `namespace/name` of the Revision. Writer: the leading autoscaler."""


class StartTiming(msgspec.Struct, frozen=True):
    """When an instance went through its start; epoch seconds on the autoscaler's clock."""

    wanted: float
    """The decision (or poke) that asked for it arrived."""
    scheduled: float
    """A sandbox was in hand and the engine was asked for the container."""
    started: float
    """The engine said that the app's process runs."""
    ready: float
    """The readiness probe succeeded."""


class Endpoint(msgspec.Struct, frozen=True, omit_defaults=True):
    """One instance that can take requests, or is finishing them."""

    id: str
    """Instance name: the emulated Pod's name and the container's hostname."""
    host: str
    """IP address on the instance network."""
    port: int
    state: Literal["ready", "draining"] = "ready"
    """`draining`: pick it no more; requests in flight may end."""
    timing: StartTiming | None = None


class RevisionEndpoints(msgspec.Struct, frozen=True):
    """Every instance of a revision that activators must know of; an empty list is scale zero."""

    endpoints: tuple[Endpoint, ...] = ()
