"""Build: an image to be made from source."""

from typing import ClassVar

from pydantic import Field

from knoll.resources.models.base import Bool, Int32, Int64, Model, Resource
from knoll.resources.models.meta import ObjectMeta, Status
from knoll.resources.models.pod import LocalObjectReference
from knoll.values.kinds import BUILD_KIND, Kind


class UploadSource(Model):
    """Source that was uploaded as a tar."""

    id: str = ""
    """What the upload was answered with."""
    sha256: str = ""
    """Digest of the tar, 64 hex digits."""


class GitSource(Model):
    """Source in a Git repository."""

    url: str = ""
    """Where it is cloned from."""
    revision: str = ""
    """Branch, tag or commit. Default: the repository's default branch."""


class BuildSource(Model):
    """Where the source comes from; one of these."""

    upload: UploadSource | None = None
    """A tar that was uploaded."""
    git: GitSource | None = None
    """A Git repository."""
    image: str = ""
    """An image that exists already: it is pulled and given the tag."""


class BuildSecret(Model):
    """A Secret's key that the build can read as a file, and that does not end up in the image."""

    id: str = ""
    """Id that the Dockerfile mounts it by."""
    name: str = ""
    """Name of the Secret."""
    key: str = ""
    """The key in it."""


class BuildSpec(Model):
    """What to build, and as what."""

    source: BuildSource = BuildSource()
    """Where the source comes from."""
    dockerfile: str = ""
    """Path of the Dockerfile in the source. Default `Dockerfile`."""
    target: str = ""
    """Stage to stop at."""
    args: dict[str, str] = Field(default_factory=dict)
    """Build arguments."""
    secrets: tuple[BuildSecret, ...] = ()
    """Secrets that the build may read."""
    platform: str = ""
    """For example `linux/amd64`. Default: the engine's own."""
    tag: str = ""
    """Name that the image gets, `NAME:TAG`."""
    push: Bool = False
    """Whether the image is pushed to the registry that its name says, too."""
    image_pull_secrets: tuple[LocalObjectReference, ...] = ()
    """Secrets with credentials for registries: for base images, for an image source, and to push."""
    service_account_name: str = ""
    """ServiceAccount whose `imagePullSecrets` count as well. Default `default`."""


class BuildStatus(Status):
    """How far the build is."""

    phase: str = ""
    """`Queued`, `Running`, `Succeeded` or `Failed`."""
    queue_position: Int32 | None = None
    """Builds that come before it, itself included, while it waits: 1 is next."""
    step: str = ""
    """The step of the Dockerfile that is at work, such as `3/7 RUN go build`."""
    digest: str = ""
    """`<repository>@sha256:<64 hex digits>` once it succeeded."""
    size: Int64 | None = None
    """Bytes of the image."""
    start_time: str = ""
    """When it began, RFC 3339."""
    completion_time: str = ""
    """When it ended, RFC 3339."""
    attempts: Int32 | None = None
    """How often it was tried."""
    log_url: str = ""
    """Path of its log at this server."""


class Build(Resource):
    """An image to be made from source."""

    KIND: ClassVar[Kind] = BUILD_KIND

    metadata: ObjectMeta = ObjectMeta()
    """Name, identity and labels."""
    spec: BuildSpec = BuildSpec()
    """What to build, and as what. Never changes."""
    status: BuildStatus = BuildStatus()
    """How far it is."""
