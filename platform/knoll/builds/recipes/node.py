"""Node: locked dependencies, an optional build, the start script."""

import json
import shlex
from typing import Any

from knoll.builds.recipes.tree import APP_USER, DEFAULT_PORT, Recipe, Tree, web_process
from knoll.values.errors import SourceError


def recipe(tree: Tree) -> Recipe | None:
    """Raises: SourceError if package.json cannot be read or no start command is detected."""
    if not tree.has("package.json"):
        return None
    package = _package(tree)
    scripts = package.get("scripts") or {}
    command, because = _command(tree, package, scripts)
    if not command:
        if tree.first("index.html") and "build" not in scripts:
            return None  # build tools of a static site
        raise SourceError(
            "package.json exists, but no start command was detected. Looked for: a Procfile with a line `web:`; the "
            "script `start`; `main`; server.js, index.js or app.js"
        )
    install, files, prune = _manager(tree)
    text = _DOCKERFILE.format(
        files=" ".join(files),
        install=install,
        build=f"RUN npm run build\nRUN {prune}\n" if "build" in scripts else f"RUN {prune}\n",
        command=json.dumps(command),
        user=APP_USER,
        port=DEFAULT_PORT,
    )
    return Recipe("Node", f"package.json, {because}", text)


def _package(tree: Tree) -> dict[str, Any]:
    try:
        manifest = json.loads(tree.read("package.json"))
    except ValueError as error:
        raise SourceError(f"package.json is not valid JSON: {error}") from error
    if not isinstance(manifest, dict) or not isinstance(manifest.get("scripts") or {}, dict):
        raise SourceError("package.json and its `scripts` must be JSON objects")
    return manifest


def _command(tree: Tree, package: dict[str, Any], scripts: dict[str, Any]) -> tuple[list[str], str]:
    web = web_process(tree)
    if web:
        return ["sh", "-c", f"exec {web}"], "Procfile"
    start = str(scripts.get("start") or "")
    if start:
        plain = start.startswith("node ") and not any(mark in start for mark in "$&|;<>*`\"'\\")
        # With npm in between, npm would receive SIGTERM instead of the program.
        return (shlex.split(start) if plain else ["npm", "start"]), f"start script `{start}`"
    main = str(package.get("main") or "")
    file = main if main and tree.has(main) else tree.first("server.js", "index.js", "app.js")
    return (["node", file], file) if file else ([], "")


def _manager(tree: Tree) -> tuple[str, list[str], str]:
    """The install command, the files it needs, and the command that removes development dependencies."""
    if tree.has("pnpm-lock.yaml"):
        install = "npm install --global pnpm && pnpm install --frozen-lockfile"
        return install, ["package.json", "pnpm-lock.yaml"], "CI=true pnpm prune --prod"
    if tree.has("yarn.lock"):
        install = "npm install --global yarn && yarn install --frozen-lockfile"
        return install, ["package.json", "yarn.lock"], "yarn install --frozen-lockfile --production"
    lock = tree.first("package-lock.json", "npm-shrinkwrap.json")
    if lock:
        return "npm ci", ["package.json", lock], "npm prune --omit=dev"
    return "npm install", ["package.json"], "npm prune --omit=dev"


_DOCKERFILE = """\
FROM node:22-slim AS build
WORKDIR /app
COPY {files} ./
RUN --mount=type=cache,target=/root/.npm {install}
COPY . .
{build}
FROM node:22-slim
WORKDIR /app
COPY --from=build /app ./
ENV NODE_ENV=production HOME=/tmp PORT={port}
USER {user}
CMD {command}
"""
