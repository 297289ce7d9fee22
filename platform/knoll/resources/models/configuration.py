"""Configuration: the code and settings that are wanted now; each change makes a Revision."""

from typing import ClassVar

from knoll.resources.models.base import Model, Resource
from knoll.resources.models.meta import ObjectMeta, Status
from knoll.resources.models.revision import RevisionTemplate
from knoll.values.kinds import CONFIGURATION, Kind


class ConfigurationSpec(Model):
    """The code and settings that are wanted now."""

    template: RevisionTemplate = RevisionTemplate()
    """The next Revision; a change of it makes one."""


class ConfigurationStatus(Status):
    """What became of the template."""

    latest_created_revision_name: str = ""
    """The newest Revision."""
    latest_ready_revision_name: str = ""
    """The newest Revision that became ready."""


class Configuration(Resource):
    """The code and settings that are wanted now; each change makes a Revision."""

    KIND: ClassVar[Kind] = CONFIGURATION

    metadata: ObjectMeta = ObjectMeta()
    """Name, identity and labels."""
    spec: ConfigurationSpec = ConfigurationSpec()
    """What is wanted."""
    status: ConfigurationStatus = ConfigurationStatus()
    """What became of it."""
