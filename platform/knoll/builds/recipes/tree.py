"""Input and output of a recipe."""

from collections.abc import Callable, Iterable
from dataclasses import dataclass

APP_USER = "65532:65532"
"""User and group of apps; no base image has them."""
DEFAULT_PORT = 8080
"""Port of an image that runs outside Knative, which sets PORT to the container's port."""


@dataclass(frozen=True, slots=True)
class Tree:
    """The files of a source."""

    names: frozenset[str]
    """Paths of files, with `/`, relative to the source."""
    read: Callable[[str], str]
    """Text of a file that is in `names`."""

    @classmethod
    def of(cls, names: Iterable[str], read: Callable[[str], str]) -> "Tree":
        return cls(frozenset(names), read)

    def has(self, name: str) -> bool:
        return name in self.names

    def first(self, *names: str) -> str:
        """The first of these files that exists; empty if none does."""
        return next((name for name in names if name in self.names), "")

    def present(self, *names: str) -> list[str]:
        return [name for name in names if name in self.names]

    def under(self, folder: str) -> bool:
        """Whether there is anything in a folder."""
        return any(name.startswith(f"{folder}/") for name in self.names)


@dataclass(frozen=True, slots=True)
class Recipe:
    """A way to build a source."""

    kind: str
    """`Go`, `Python`, `Node` or `static site`."""
    because: str
    """The files that led to it, for display."""
    dockerfile: str
    """The whole text."""


def web_process(tree: Tree) -> str:
    """The `web:` line of a Procfile; empty when there is none."""
    if not tree.has("Procfile"):
        return ""
    for line in tree.read("Procfile").splitlines():
        name, colon, command = line.partition(":")
        if colon and name.strip() == "web":
            return command.strip()
    return ""
