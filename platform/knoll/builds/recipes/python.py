"""Python: dependencies in a virtual environment, the app served by uvicorn (ASGI) or gunicorn (WSGI)."""

import ast
import json
import tomllib
from collections.abc import Iterator
from dataclasses import dataclass

from knoll.builds.recipes.tree import APP_USER, DEFAULT_PORT, Recipe, Tree, web_process
from knoll.values.errors import SourceError

ASGI = frozenset({"FastAPI", "Starlette", "Quart", "Litestar", "BlackSheep", "get_asgi_application"})
WSGI = frozenset({"Flask", "Bottle", "get_wsgi_application"})
_STEMS = ("main", "app", "server", "api", "asgi", "wsgi", "application", "web")


@dataclass(frozen=True, slots=True)
class App:
    """Location of the app object."""

    module: str
    """Dotted."""
    name: str
    factory: str
    """The class or function that creates it: one of `ASGI` or `WSGI`."""

    @property
    def package(self) -> str:
        """The server that must be installed."""
        return "uvicorn" if self.factory in ASGI else "gunicorn"

    @property
    def command(self) -> str:
        where = f"{self.module}:{self.name}"
        if self.factory in ASGI:
            return f"exec uvicorn {where} --host 0.0.0.0 --port $PORT"
        return f"exec gunicorn {where} --bind 0.0.0.0:$PORT --threads 8 --timeout 0"


def recipe(tree: Tree) -> Recipe | None:
    """Raises: SourceError if it is Python and no start command is detected, or a file cannot be parsed."""
    told_by = tree.first("requirements.txt", "pyproject.toml", "main.py", "app.py")
    if not told_by:
        return None
    app, script = _app(tree), tree.first("main.py", "app.py", "server.py")
    command = web_process(tree)
    if command:
        because, command = f"{told_by}, Procfile", f"exec {command}"
    elif app:
        because, command = f"{told_by}, {app.factory} in {app.module}", app.command
    elif script:
        because, command = f"{told_by}, {script}", f"exec python {script}"
    else:
        raise SourceError(
            f"{told_by} exists, but no start command was detected. Looked for: a Procfile with a line `web:`; an app "
            f"of {', '.join(sorted(ASGI | WSGI))} in {', '.join(f'{stem}.py' for stem in _STEMS)}, "
            "also in a package; main.py"
        )
    server = "" if not app or command.startswith("exec python ") else app.package
    text = _DOCKERFILE.format(
        install=_install(tree, server),
        command=json.dumps(["sh", "-c", command]),
        path="/app/src" if tree.under("src") and not (app and app.module.startswith("src.")) else "/app",
        user=APP_USER,
        port=DEFAULT_PORT,
    )
    return Recipe("Python", because, text)


def _app(tree: Tree) -> App | None:
    for name in _candidates(tree):
        module = name.removesuffix(".py").removeprefix("src/").replace("/", ".")
        for variable, factory in _made(name, tree.read(name)):
            return App(module, variable, factory)
    return None


def _candidates(tree: Tree) -> list[str]:
    """Likely files, likeliest first: near the top, then by stem."""
    ranks = {f"{stem}.py": rank for rank, stem in enumerate(_STEMS)}
    candidates = [name for name in tree.names if name.rpartition("/")[2] in ranks and name.count("/") <= 2]
    return sorted(candidates, key=lambda name: (name.count("/"), ranks[name.rpartition("/")[2]], name))


def _made(name: str, text: str) -> Iterator[tuple[str, str]]:
    """Module-level variables that hold an app: name and factory."""
    try:
        body = ast.parse(text).body
    except (SyntaxError, ValueError) as error:
        raise SourceError(f"{name} is not valid Python: {error}") from error
    for statement in body:
        targets: list[ast.expr] = []
        if isinstance(statement, ast.Assign):
            targets = statement.targets
        elif isinstance(statement, ast.AnnAssign):
            targets = [statement.target]
        else:
            continue
        value = statement.value
        if not isinstance(value, ast.Call):
            continue
        called = value.func.attr if isinstance(value.func, ast.Attribute) else getattr(value.func, "id", "")
        if called in ASGI | WSGI:
            yield from ((target.id, called) for target in targets if isinstance(target, ast.Name))


def _install(tree: Tree, server: str) -> str:
    """The layer of dependencies, which changes only with the file that names them."""
    pip = "RUN --mount=type=cache,target=/root/.cache/pip pip install"
    if tree.has("requirements.txt"):
        # A file that refers to other files of the source needs all of it.
        lines = (line.strip() for line in tree.read("requirements.txt").splitlines())
        files = ". ." if any(line.startswith(("-", ".", "/")) for line in lines) else "requirements.txt ./"
        return f"COPY {files}\n{pip} -r requirements.txt {server}".rstrip() + "\n"
    if tree.has("pyproject.toml"):
        packages = " ".join(_quoted(text) for text in [*_dependencies(tree), *([server] if server else [])])
        return f"{pip} {packages}\n" if packages else ""
    return f"{pip} {server}\n" if server else ""


def _dependencies(tree: Tree) -> list[str]:
    try:
        document = tomllib.loads(tree.read("pyproject.toml"))
    except tomllib.TOMLDecodeError as error:
        raise SourceError(f"pyproject.toml is not valid TOML: {error}") from error
    if "project" not in document and "poetry" in document.get("tool", {}):
        raise SourceError("pyproject.toml lists its dependencies for Poetry only: export them to requirements.txt")
    declared = document.get("project", {}).get("dependencies", [])
    if not isinstance(declared, list) or not all(isinstance(text, str) and "\n" not in text for text in declared):
        raise SourceError("pyproject.toml: project.dependencies must be a list of requirements, each on one line")
    return declared


def _quoted(text: str) -> str:
    escaped = text.replace("'", "'\\''")
    return f"'{escaped}'"


_DOCKERFILE = """\
FROM python:3.13-slim AS build
ENV PIP_DISABLE_PIP_VERSION_CHECK=1 PATH=/venv/bin:$PATH
RUN python -m venv /venv
WORKDIR /app
{install}
FROM python:3.13-slim
COPY --from=build /venv /venv
WORKDIR /app
COPY . .
ENV PATH=/venv/bin:$PATH PYTHONUNBUFFERED=1 PYTHONDONTWRITEBYTECODE=1 PYTHONPATH={path} HOME=/tmp PORT={port}
USER {user}
CMD {command}
"""
