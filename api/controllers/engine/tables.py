"""What the controllers write to and follow: the store, the tables and the job queue."""

from dataclasses import dataclass

from knoll.builds.queue import JobQueue
from knoll.messages.builds import BuildProgress, Resolution, Unresolved
from knoll.messages.routing import RouteEntry
from knoll.messages.scale import ScaleStatus
from knoll.store.protocol import Store
from knoll.tables.protocol import Table


@dataclass(frozen=True, slots=True)
class Tables:
    """The tables through which the controllers talk to other processes."""

    routing: Table[RouteEntry]
    """Written here, followed by the activators."""
    unresolved: Table[Unresolved]
    """The Revisions whose digests the builder resolves."""
    resolutions: Table[Resolution]
    builds: Table[BuildProgress]
    scale: Table[ScaleStatus]


@dataclass(frozen=True, slots=True)
class Outputs:
    """Everything that the actions of reconcilers write to."""

    store: Store
    tables: Tables
    queue: JobQueue
