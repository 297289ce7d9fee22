"""Which recipe a source wants."""

from collections.abc import Callable

from knoll.builds.recipes import go, node, python, static
from knoll.builds.recipes.tree import Recipe, Tree
from knoll.values.errors import SourceError

RECIPES: tuple[Callable[[Tree], Recipe | None], ...] = (go.recipe, node.recipe, python.recipe, static.recipe)
"""In this order: a Go or Node program often has an index.html beside it, never the other way round."""

LOOKED_FOR = (
    "a Dockerfile",
    "go.mod (Go)",
    "package.json (Node)",
    "requirements.txt, pyproject.toml, main.py or app.py (Python)",
    "index.html, also in public, dist or build (a static site)",
)


def detect(tree: Tree) -> Recipe:
    """The recipe for a source.

    Raises: SourceError when no recipe fits, with what was looked for, or when one fits and something in the source
        keeps it from being followed.
    """
    for recipe in RECIPES:
        detected = recipe(tree)
        if detected:
            return detected
    top = sorted({name.partition("/")[0] for name in tree.names})
    seen = ", ".join(top[:20]) + (", …" if len(top) > 20 else "") if top else "nothing"
    raise SourceError(
        f"nothing here says how to build this source. Looked for: {'; '.join(LOOKED_FOR)}. "
        f"At its top level there is: {seen}. Add a Dockerfile, or name one with --file."
    )
