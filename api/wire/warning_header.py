"""The `Warning` header of an answer (RFC 7234 section 5.5), as client-go reads it. Pure."""

import re
from collections.abc import Iterable

MOST = 20
"""Warnings in one answer; the object is what the client asked for, not the list of its faults."""
LONGEST = 1000
"""Characters of one warning."""

_CONTROL = re.compile(r"[\x00-\x1f\x7f-\x9f]")
"""client-go throws a warning away that holds one, and no server may send them."""


def headers(warnings: Iterable[str]) -> dict[str, str]:
    """No header for no warnings; otherwise one, whose UTF-8 bytes are shown as Latin-1, as ASGI servers expect."""
    texts = [_quoted(text) for text in warnings][:MOST]
    if not texts:
        return {}
    line = ", ".join(f'299 - "{text}"' for text in texts)
    return {"Warning": line.encode("utf-8", "replace").decode("latin-1")}


def _quoted(text: str) -> str:
    visible = _CONTROL.sub(lambda match: " " if match[0] == "\n" else f"\\x{ord(match[0]):02x}", text[:LONGEST])
    return visible.replace("\\", "\\\\").replace('"', '\\"')
