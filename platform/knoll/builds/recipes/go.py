"""Go: one static binary in an otherwise empty image."""

import re

from knoll.builds.recipes.tree import APP_USER, DEFAULT_PORT, Recipe, Tree
from knoll.values.errors import SourceError

_PACKAGE = re.compile(r"^package\s+(\w+)", re.MULTILINE)


def recipe(tree: Tree) -> Recipe | None:
    """Raises: SourceError if there is not exactly one program to build."""
    if not tree.has("go.mod"):
        return None
    package = _main_package(tree)
    download = "" if tree.under("vendor") else _DOWNLOAD.format(modules=" ".join(tree.present("go.mod", "go.sum")))
    text = _DOCKERFILE.format(download=download, package=package, user=APP_USER, port=DEFAULT_PORT)
    return Recipe("Go", f"go.mod, program {package}", text)


def _main_package(tree: Tree) -> str:
    folders = {name.rpartition("/")[0] for name in tree.names if _is_main(tree, name)}
    if "" in folders:
        return "."
    commands = sorted(folder for folder in folders if not folder.startswith(("vendor/", "examples/", "internal/")))
    if len(commands) == 1:
        return f"./{commands[0]}"
    if not commands:
        raise SourceError("go.mod exists, but no .go file has `package main`: a library cannot be run")
    raise SourceError(
        f"this Go module has several programs ({', '.join(commands)}): add a Dockerfile that builds one of them"
    )


def _is_main(tree: Tree, name: str) -> bool:
    if not name.endswith(".go") or name.endswith("_test.go"):
        return False
    clause = _PACKAGE.search(tree.read(name))
    return clause is not None and clause[1] == "main"


# A cache's name is its path: with the compiler's default paths, Dockerfiles written by users share these caches, and
# the standard library is compiled only once.
_DOWNLOAD = """\
COPY {modules} ./
RUN --mount=type=cache,target=/go/pkg/mod go mod download
"""

_DOCKERFILE = """\
FROM golang:1.24 AS build
ENV CGO_ENABLED=0
WORKDIR /src
{download}COPY . .
RUN --mount=type=cache,target=/go/pkg/mod --mount=type=cache,target=/root/.cache/go-build \\
    go build -trimpath -ldflags="-s -w" -o /app {package}

FROM scratch
COPY --from=build /etc/ssl/certs/ca-certificates.crt /etc/ssl/certs/
COPY --from=build /app /app
ENV PORT={port}
USER {user}
ENTRYPOINT ["/app"]
"""
