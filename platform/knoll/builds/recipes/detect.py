"""Selects the recipe for a source."""

from collections.abc import Callable

from knoll.builds.recipes import go, node, python, static
from knoll.builds.recipes.tree import Recipe, Tree
from knoll.values.errors import SourceError

RECIPES: tuple[Callable[[Tree], Recipe | None], ...] = (go.recipe, node.recipe, python.recipe, static.recipe)
"""In order of precedence: Go and Node programs often contain an index.html, but a static site contains no program."""

LOOKED_FOR = (
    "a Dockerfile",
    "go.mod (Go)",
    "package.json (Node)",
    "requirements.txt, pyproject.toml, main.py or app.py (Python)",
    "index.html, also in public, dist or build (a static site)",
)


def detect(tree: Tree) -> Recipe:
    """Return the recipe for a source.

    Raises: SourceError if no recipe matches, listing what was looked for, or if one matches but cannot be applied.
    """
    for recipe in RECIPES:
        detected = recipe(tree)
        if detected:
            return detected
    top = sorted({name.partition("/")[0] for name in tree.names})
    seen = ", ".join(top[:20]) + (", …" if len(top) > 20 else "") if top else "nothing"
    raise SourceError(
        f"cannot detect how to build this source. Looked for: {'; '.join(LOOKED_FOR)}. "
        f"Its top level has: {seen}. Add a Dockerfile, or pass the path of one with --file."
    )
