"""The `Warning` header of a response (RFC 7234 section 5.5), as client-go parses it. Pure."""

import re
from collections.abc import Iterable

MAX_WARNINGS = 20
"""Limit of warnings in one response."""
MAX_LENGTH = 1000
"""Limit of one warning, in characters."""

_CONTROL = re.compile(r"[\x00-\x1f\x7f-\x9f]")
"""Control characters: client-go drops warnings that contain one, and HTTP forbids them."""


def headers(warnings: Iterable[str]) -> dict[str, str]:
    """Return the header, none without warnings; its UTF-8 bytes are decoded as Latin-1, as ASGI servers expect."""
    texts = [_quoted(text) for text in warnings][:MAX_WARNINGS]
    if not texts:
        return {}
    line = ", ".join(f'299 - "{text}"' for text in texts)
    return {"Warning": line.encode("utf-8", "replace").decode("latin-1")}


def _quoted(text: str) -> str:
    visible = _CONTROL.sub(lambda match: " " if match[0] == "\n" else f"\\x{ord(match[0]):02x}", text[:MAX_LENGTH])
    return visible.replace("\\", "\\\\").replace('"', '\\"')
