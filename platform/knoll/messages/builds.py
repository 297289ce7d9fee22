"""Requests to the builder and its responses. Pure.

Builds, which take minutes and a process each, are RQ jobs: enqueued by the *name* below (processes do not import each
other) with the namespace and name of the object as their arguments. Look-ups of digests, which take milliseconds and
are numerous, are entries of a table that the builder follows. It reads the object from the store, and responds through
another table.
"""

from collections.abc import Mapping
from enum import StrEnum

import msgspec

BUILD_JOB = "builder.process.jobs.build"
"""RQ function `(namespace, name)` of a Build, on queue `keys.BUILD_JOBS`."""

UNRESOLVED = "unresolved"
"""Name of the table of `Unresolved`. Field: uid of the Revision. The API adds entries; the builder removes them."""

RESOLUTIONS = "resolutions"
"""Name of the table of `Resolution`. Field: `namespace/name` of the Revision. Writer: builder."""

BUILDS = "builds"
"""Name of the table of `BuildProgress`. Field: `namespace/name` of the Build. Writer: builder."""


class Unresolved(msgspec.Struct, frozen=True):
    """A Revision whose image digests are requested."""

    namespace: str
    name: str


class Resolved(msgspec.Struct, frozen=True):
    """The image of one container, by digest."""

    container: str
    image: str
    digest: str
    """`repo@sha256:<64 hex>`. For an image that only the local engine has, the hex is the image's id: the runtime
    takes either. The reference as it is, for a registry of `registries-skipping-tag-resolving`."""


class Resolution(msgspec.Struct, frozen=True):
    """The response to one `Unresolved`."""

    uid: str
    """uid of the Revision."""
    images: tuple[Resolved, ...] = ()
    """In container order; init containers after them. Empty when `error` is set."""
    error: str = ""
    """Names the image and says why it could not be resolved."""


class BuildPhase(StrEnum):
    """The state of a Build, as `status.phase` shows it."""

    QUEUED = "Queued"
    RUNNING = "Running"
    SUCCEEDED = "Succeeded"
    FAILED = "Failed"

    @property
    def is_final(self) -> bool:
        """Whether a Build never leaves this phase."""
        return not BUILD_TRANSITIONS[self]


BUILD_TRANSITIONS: Mapping[BuildPhase, frozenset[BuildPhase]] = {
    # A worker takes the job. A job that was taken too often fails without running again.
    BuildPhase.QUEUED: frozenset({BuildPhase.RUNNING, BuildPhase.FAILED}),
    # RUNNING again: the worker died, and another one takes the job. QUEUED: Redis lost the progress as well.
    BuildPhase.RUNNING: frozenset({BuildPhase.RUNNING, BuildPhase.QUEUED, BuildPhase.SUCCEEDED, BuildPhase.FAILED}),
    BuildPhase.SUCCEEDED: frozenset(),
    BuildPhase.FAILED: frozenset(),
}
"""Phase to the phases that may follow. A Build without progress is QUEUED; a deleted one leaves the table."""


class BuildProgress(msgspec.Struct, frozen=True):
    """The progress of a Build."""

    uid: str
    phase: BuildPhase
    reason: str = ""
    message: str = ""
    step: str = ""
    """The current step while it runs, `knoll.builds.progress.Steps.description`."""
    digest: str = ""
    """`repo@sha256:…` once it succeeded."""
    size: int = 0
    """Bytes of the image."""
    started: float = 0.0
    """Epoch seconds; 0 before."""
    finished: float = 0.0
    attempts: int = 0
