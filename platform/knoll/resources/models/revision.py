"""Revision: an immutable snapshot of code and settings."""

from typing import Any, ClassVar

from pydantic import SerializerFunctionWrapHandler, model_serializer

from knoll.resources.models.base import Int32, Int64, Model, Resource
from knoll.resources.models.meta import ObjectMeta, Status, TemplateMeta
from knoll.resources.models.pod import Container, PodSpec
from knoll.values.kinds import REVISION, Kind


class RevisionSpec(PodSpec):
    """The containers of an instance and how requests are sent to it. Immutable."""

    container_concurrency: Int64 | None = None
    """Maximum number of concurrent requests per instance, 0 to 1000; 0 is no limit."""
    timeout_seconds: Int64 | None = None
    """Timeout of a request, in seconds. Default 300."""
    response_start_timeout_seconds: Int64 | None = None
    """Maximum number of seconds until the first byte of the response."""
    idle_timeout_seconds: Int64 | None = None
    """Maximum number of seconds without a byte of the response."""

    @property
    def serving_container(self) -> Container:
        """The container that receives the requests: the only one, or the one with a port.

        Raises:
            IndexError: no containers, which validation rejects.
        """
        return next((container for container in self.containers if container.ports), self.containers[0])


class RevisionTemplate(Model):
    """Template of a Revision."""

    metadata: TemplateMeta = TemplateMeta()
    """Name (must begin with the name of the Service or Configuration and `-`), labels and annotations."""
    spec: RevisionSpec = RevisionSpec()
    """The containers of its instances and how requests are sent to them."""

    @model_serializer(mode="wrap")
    def _with_metadata(self, handler: SerializerFunctionWrapHandler) -> dict[str, Any]:
        # Knative always shows a template's metadata, even if it is empty.
        return {"metadata": {}, **handler(self)}


class ContainerStatus(Model):
    """The image of a container, by digest."""

    name: str = ""
    """Name of the container."""
    image_digest: str = ""
    """`<repository>@sha256:<64 hex digits>`."""


class RevisionStatus(Status):
    """Observed state of the Revision."""

    service_name: str = ""
    """Name of its Kubernetes Service."""
    log_url: str = ""
    """URL of its log."""
    container_statuses: tuple[ContainerStatus, ...] = ()
    """Images by digest, in the order of the containers."""
    init_container_statuses: tuple[ContainerStatus, ...] = ()
    """Images of the init containers by digest."""
    actual_replicas: Int32 | None = None
    """Number of ready instances."""
    desired_replicas: Int32 | None = None
    """Desired number of instances."""


class Revision(Resource):
    """An immutable snapshot of code and settings, created from a Configuration's template."""

    KIND: ClassVar[Kind] = REVISION

    metadata: ObjectMeta = ObjectMeta()
    """Name, labels and other metadata."""
    spec: RevisionSpec = RevisionSpec()
    """The containers of its instances and how requests are sent to them. Immutable."""
    status: RevisionStatus = RevisionStatus()
    """Observed state."""
