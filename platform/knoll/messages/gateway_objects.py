"""The table of objects that the activator needs, published by the API; see `knoll.tables.gateway_objects`. Pure."""

import msgspec

GATEWAY_OBJECTS = "gateway-objects"
"""Name of the table of `GatewayObject`. Field: `<resource id> <namespace>/<name>`. Writer: api."""


class GatewayObject(msgspec.Struct, frozen=True):
    """One object, reduced to the fields that the activator uses."""

    body: str
    """Canonical JSON; for a Secret, its envelope in base64 if Secrets are encrypted."""
