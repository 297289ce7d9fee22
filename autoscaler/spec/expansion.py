"""`$(NAME)` in commands, arguments and variables, as Kubernetes expands it. Pure.

Source: Kubernetes, third_party/forked/golang/expansion: `$$` is one `$`, what names nothing known stays as it is.
"""

import re
from collections.abc import Mapping

_REFERENCE = re.compile(r"\$(?:\$|\(([^)]*)\))")


def expand(text: str, known: Mapping[str, str]) -> str:
    """Put values in the place of references."""

    def value(found: re.Match[str]) -> str:
        if found[0] == "$$":
            return "$"
        return known.get(found[1], found[0])

    return _REFERENCE.sub(value, text)
