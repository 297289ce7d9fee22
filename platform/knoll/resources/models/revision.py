"""Revision: one immutable state of the code and its settings."""

from typing import Any, ClassVar

from pydantic import SerializerFunctionWrapHandler, model_serializer

from knoll.resources.models.base import Int32, Int64, Model, Resource
from knoll.resources.models.meta import ObjectMeta, Status, TemplateMeta
from knoll.resources.models.pod import Container, PodSpec
from knoll.values.kinds import REVISION, Kind


class RevisionSpec(PodSpec):
    """What an instance consists of and how requests are given to it. Never changes."""

    container_concurrency: Int64 | None = None
    """Requests that one instance handles at once, 0 to 1000; 0 is no limit."""
    timeout_seconds: Int64 | None = None
    """Seconds that a request may take as a whole. Default 300."""
    response_start_timeout_seconds: Int64 | None = None
    """Seconds that may pass until the first byte of the answer."""
    idle_timeout_seconds: Int64 | None = None
    """Seconds that may pass without a byte of the answer."""

    @property
    def serving_container(self) -> Container:
        """The container that takes the requests: the only one, or the one with a port.

        Raises:
            IndexError: no containers; validation refuses that.
        """
        return next((container for container in self.containers if container.ports), self.containers[0])


class RevisionTemplate(Model):
    """The next Revision."""

    metadata: TemplateMeta = TemplateMeta()
    """Name (must begin with the Service's or Configuration's name and `-`), labels and annotations of the Revision."""
    spec: RevisionSpec = RevisionSpec()
    """What its instances consist of."""

    @model_serializer(mode="wrap")
    def _with_metadata(self, handler: SerializerFunctionWrapHandler) -> dict[str, Any]:
        # Knative always shows a template's metadata, also when it is empty.
        return {"metadata": {}, **handler(self)}


class ContainerStatus(Model):
    """One container's image, pinned."""

    name: str = ""
    """Name of the container."""
    image_digest: str = ""
    """`<repository>@sha256:<64 hex digits>`."""


class RevisionStatus(Status):
    """What is known about the Revision."""

    service_name: str = ""
    """Name of its internal address."""
    log_url: str = ""
    """Where its log is shown."""
    container_statuses: tuple[ContainerStatus, ...] = ()
    """The pinned images, in the order of the containers."""
    init_container_statuses: tuple[ContainerStatus, ...] = ()
    """The pinned images of the init containers."""
    actual_replicas: Int32 | None = None
    """Instances that are ready."""
    desired_replicas: Int32 | None = None
    """Instances that are wanted."""


class Revision(Resource):
    """One immutable state of the code and its settings, made from a Configuration's template."""

    KIND: ClassVar[Kind] = REVISION

    metadata: ObjectMeta = ObjectMeta()
    """Name, identity and labels."""
    spec: RevisionSpec = RevisionSpec()
    """What its instances consist of. Never changes."""
    status: RevisionStatus = RevisionStatus()
    """What is known about it."""
