"""The annotations and labels that the code reads or writes, and their descriptions (annotations.yaml beside this).

`keys_in_code` returns all keys that the code has; a test fails when one of them is not described, or a description has
no key in the code any more.
"""

import ast
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import yaml

from knoll.values.labels import ALIASES

ROOT = Path(__file__).resolve().parent.parent
SHIPPED = ("platform/knoll", "api", "activator", "autoscaler", "builder")
_KEY = re.compile(r"(?:(?:serving|autoscaling|networking)\.knative\.dev|knoll\.dev)/[A-Za-z][A-Za-z-]*")
_NOT_METADATA = frozenset({"knoll.dev/processes", "knoll.dev/contents", "knoll.dev/join-token"})
"""An audience of tokens, a finalizer of Namespaces, and a type of Secrets."""


@dataclass(frozen=True, slots=True)
class Section:
    """Keys with something in common."""

    title: str
    intro: str
    rows: Mapping[str, str]


SECTIONS = tuple(
    Section(section["title"], section.get("intro", ""), section["keys"])
    for section in yaml.safe_load((ROOT / "scripts" / "annotations.yaml").read_text())
)


def described_keys() -> list[str]:
    """Every key of `SECTIONS`."""
    return [key for section in SECTIONS for key in section.rows]


def older_spellings(key: str) -> tuple[str, ...]:
    """Spellings of the key that are read where the key itself is absent."""
    return ALIASES.get(key, ())


def keys_in_code() -> set[str]:
    """Keys of annotations and labels that a constant of the shipped code holds, without older spellings."""
    keys: set[str] = set()
    for package in SHIPPED:
        for file in (ROOT / package).rglob("*.py"):
            keys |= {text for text in _constants(ast.parse(file.read_text())) if _KEY.fullmatch(text)}
    older = {spelling for spellings in ALIASES.values() for spelling in spellings}
    return keys - older - _NOT_METADATA


def _constants(tree: ast.Module) -> set[str]:
    """Values of the module's string constants, `PREFIX + "suffix"` included."""
    values: dict[str, str] = {}
    for node in tree.body:
        if isinstance(node, ast.Assign) and (text := _folded(node.value, values)) is not None:
            values |= {target.id: text for target in node.targets if isinstance(target, ast.Name)}
    return set(values.values())


def _folded(node: ast.expr, values: Mapping[str, str]) -> str | None:
    if isinstance(node, ast.Constant) and isinstance(node.value, str):
        return node.value
    if isinstance(node, ast.Name):
        return values.get(node.id)
    if isinstance(node, ast.BinOp) and isinstance(node.op, ast.Add):
        left, right = _folded(node.left, values), _folded(node.right, values)
        return left + right if left is not None and right is not None else None
    return None
