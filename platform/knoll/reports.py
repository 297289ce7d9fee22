"""What activators tell the autoscaler, over two channels that keep nothing (`keys.REPORTS`, `keys.POKES`). Pure."""

import msgspec


class RevisionReport(msgspec.Struct, frozen=True):
    """One activator's view of one revision over one period."""

    revision: str
    """`namespace/name`."""
    concurrency: float
    """Time-weighted mean of the requests that were in flight or waiting."""
    requests: int
    """Requests that arrived in the period."""
    in_flight: int
    """In an instance at the period's end."""
    queued: int
    """Waiting for one at the period's end."""
    held: dict[str, int] = {}
    """Instance name to requests in it at the period's end, where there is more than one instance to choose from."""


class Report(msgspec.Struct, frozen=True):
    """One activator's second. A revision is left out once it was reported with nothing at all."""

    activator: str
    """Id of the activator worker, as in the followers of the tables."""
    at: float
    """Epoch seconds of the period's end."""
    period: float
    """Seconds, > 0."""
    revisions: tuple[RevisionReport, ...]
    draining: dict[str, int] = {}
    """Instance name to requests in flight, for each endpoint in state `draining`; repeated until it is removed."""
    tunnels: dict[str, int] = {}
    """The same for upgraded connections (WebSockets), not among those requests; left out where there are none."""


class Poke(msgspec.Struct, frozen=True):
    """A request found no free instance: decide now, not at the next tick."""

    activator: str
    revision: str
    """`namespace/name`."""
    at: float
    """Epoch seconds."""
    waiting: int
    """Requests of that revision waiting at this activator, >= 1."""
