"""Build: an image that is built from source."""

from typing import ClassVar

from pydantic import Field

from knoll.resources.models.base import Bool, Int32, Int64, Model, Resource
from knoll.resources.models.meta import ObjectMeta, Status
from knoll.resources.models.pod import LocalObjectReference
from knoll.values.kinds import BUILD_KIND, Kind


class UploadSource(Model):
    """Source that was uploaded as a tar archive."""

    id: str = ""
    """Id in the response to the upload."""
    sha256: str = ""
    """SHA-256 digest of the tar archive, 64 hexadecimal digits."""


class GitSource(Model):
    """Source in a Git repository."""

    url: str = ""
    """URL to clone from."""
    revision: str = ""
    """Branch, tag or commit. Default: the repository's default branch."""


class BuildSource(Model):
    """Location of the source; exactly one field must be set."""

    upload: UploadSource | None = None
    """An uploaded tar archive."""
    git: GitSource | None = None
    """A Git repository."""
    image: str = ""
    """An existing image, which is pulled and tagged."""


class BuildSecret(Model):
    """A key of a Secret that the build can read as a file, without adding it to the image."""

    id: str = ""
    """Id with which the Dockerfile mounts it."""
    name: str = ""
    """Name of the Secret."""
    key: str = ""
    """Key in the Secret."""


class BuildSpec(Model):
    """The source of the build and the image to create."""

    source: BuildSource = BuildSource()
    """Location of the source."""
    dockerfile: str = ""
    """Path of the Dockerfile in the source. Default `Dockerfile`."""
    target: str = ""
    """Build stage to stop at."""
    args: dict[str, str] = Field(default_factory=dict)
    """Build arguments."""
    secrets: tuple[BuildSecret, ...] = ()
    """Secrets that the build may read."""
    platform: str = ""
    """For example `linux/amd64`. Default: the engine's own."""
    tag: str = ""
    """Name of the image, as `NAME:TAG`."""
    push: Bool = False
    """Whether to push the image to the registry in its name."""
    image_pull_secrets: tuple[LocalObjectReference, ...] = ()
    """Secrets with registry credentials: for base images, for an image source, and to push."""
    service_account_name: str = ""
    """ServiceAccount whose `imagePullSecrets` are used as well. Default `default`."""


class BuildStatus(Status):
    """Progress of the build."""

    phase: str = ""
    """`Queued`, `Running`, `Succeeded` or `Failed`."""
    queue_position: Int32 | None = None
    """Position in the queue while it waits: 1 is next."""
    step: str = ""
    """Current step of the Dockerfile, such as `3/7 RUN go build`."""
    digest: str = ""
    """`<repository>@sha256:<64 hex digits>`, after it succeeded."""
    size: Int64 | None = None
    """Size of the image in bytes."""
    start_time: str = ""
    """Time at which it started, RFC 3339."""
    completion_time: str = ""
    """Time at which it ended, RFC 3339."""
    attempts: Int32 | None = None
    """Number of attempts."""
    log_url: str = ""
    """Path of its log on this server."""


class Build(Resource):
    """An image that is built from source."""

    KIND: ClassVar[Kind] = BUILD_KIND

    metadata: ObjectMeta = ObjectMeta()
    """Name, labels and other metadata."""
    spec: BuildSpec = BuildSpec()
    """The source of the build and the image to create. Immutable."""
    status: BuildStatus = BuildStatus()
    """Progress of the build."""
