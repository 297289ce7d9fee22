"""Types of JSON that is parsed but not validated yet. Pure."""

from typing import Any

Json = dict[str, Any]
"""A JSON object. `Any` ends where it is parsed into a model."""
JsonValue = Any
"""Any JSON value: object, array, string, number, boolean or null."""
