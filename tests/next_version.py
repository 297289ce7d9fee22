"""Turns the installed platform into one of another minor version, in an image: `python next_version.py 0.3.0`.

The version changes, and every message between machines gets one more field, which the present version does not know.
"""

import ast
import re
import sys
from pathlib import Path

import knoll

FIELD = 'of_another_version: str = msgspec.field(default_factory=lambda: "unknown")'
"""It is always sent: its default is not a constant."""


def with_field(source: str) -> str:
    """Return a module whose messages have the field as their last one."""
    lines = source.splitlines()
    ends = []
    for item in ast.parse(source).body:
        if isinstance(item, ast.ClassDef) and any("Struct" in ast.unparse(base) for base in item.bases):
            fields = [part for part in item.body if not isinstance(part, ast.FunctionDef | ast.AsyncFunctionDef)]
            ends.append(fields[-1].end_lineno or 0)
    for end in reversed(ends):
        lines.insert(end, f"    {FIELD}")
    return "\n".join([*lines, ""])


def main(version: str) -> None:
    package = Path(knoll.__path__[0])
    init = package / "__init__.py"
    init.write_text(re.sub(r'(?m)^__version__ = ".*"$', f'__version__ = "{version}"', init.read_text()))
    for module in (package / "messages").glob("*.py"):
        module.write_text(with_field(module.read_text()))


if __name__ == "__main__":
    main(sys.argv[1])
