"""`$(NAME)` in commands, arguments and variables, as Kubernetes expands it. Pure.

Source: Kubernetes, third_party/forked/golang/expansion: `$$` is one `$`, what names nothing known stays as it is.
"""

import re
from collections.abc import Iterable, Mapping

_REFERENCE = re.compile(r"\$(?:\$|\(([^)]*)\))")


def expand(text: str, known: Mapping[str, str]) -> str:
    """Put values in the place of references."""

    def value(found: re.Match[str]) -> str:
        if found[0] == "$$":
            return "$"
        return known.get(found[1], found[0])

    return _REFERENCE.sub(value, text)


def expand_variables(variables: Iterable[tuple[str, str]]) -> dict[str, str]:
    """Variables in their order: each may refer to those before it."""
    known: dict[str, str] = {}
    for name, text in variables:
        known[name] = expand(text, known)
    return known
