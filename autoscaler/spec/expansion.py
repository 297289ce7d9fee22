"""`$(NAME)` in commands, arguments and variables, as Kubernetes expands it. Pure.

Source: Kubernetes, third_party/forked/golang/expansion: `$$` is one `$`, references to unknown variables stay.
"""

import re
from collections.abc import Mapping

_REFERENCE = re.compile(r"\$(?:\$|\(([^)]*)\))")


def expand(text: str, variables: Mapping[str, str]) -> str:
    """Replace references with values."""

    def value(reference: re.Match[str]) -> str:
        if reference[0] == "$$":
            return "$"
        return variables.get(reference[1], reference[0])

    return _REFERENCE.sub(value, text)
