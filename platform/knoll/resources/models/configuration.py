"""Configuration: the desired code and settings; each change creates a Revision."""

from typing import ClassVar

from knoll.resources.models.base import Model, Resource
from knoll.resources.models.meta import ObjectMeta, Status
from knoll.resources.models.revision import RevisionTemplate
from knoll.values.kinds import CONFIGURATION, Kind


class ConfigurationSpec(Model):
    """The desired code and settings."""

    template: RevisionTemplate = RevisionTemplate()
    """Template of the Revision; each change creates a new Revision."""


class ConfigurationStatus(Status):
    """The Revisions that were created from the template."""

    latest_created_revision_name: str = ""
    """The latest Revision."""
    latest_ready_revision_name: str = ""
    """The latest Revision that became ready."""


class Configuration(Resource):
    """The desired code and settings of a program; each change creates a Revision."""

    KIND: ClassVar[Kind] = CONFIGURATION

    metadata: ObjectMeta = ObjectMeta()
    """Name, labels and other metadata."""
    spec: ConfigurationSpec = ConfigurationSpec()
    """Desired state."""
    status: ConfigurationStatus = ConfigurationStatus()
    """Observed state."""
