import json
import re
from collections.abc import Mapping

import pytest
from hypothesis import given
from hypothesis import strategies as st

from knoll.builds.recipes import Recipe, Tree, detect
from knoll.values.errors import SourceError

FASTAPI = "from fastapi import FastAPI\napp = FastAPI()\n"
FLASK = "import flask\nsite: flask.Flask = flask.Flask(__name__)\n"
NODE = json.dumps({"scripts": {"start": "node server.js --x 1"}})


def recipe(files: Mapping[str, str]) -> Recipe:
    return detect(Tree.of(files, files.__getitem__))


@pytest.mark.parametrize(
    ("files", "kind", "command"),
    [
        ({"go.mod": "", "main.go": "package main\n"}, "Go", "-o /app .\n"),
        ({"go.mod": "", "cmd/x/x.go": "// c\npackage main\n", "lib.go": "package lib"}, "Go", "-o /app ./cmd/x\n"),
        ({"go.mod": "", "main.go": "package main\n", "index.html": ""}, "Go", "COPY go.mod ./"),
        ({"go.mod": "", "go.sum": "", "main.go": "package main\n"}, "Go", "COPY go.mod go.sum ./"),
        ({"requirements.txt": "fastapi\n", "main.py": FASTAPI}, "Python", "uvicorn main:app --host 0.0.0.0"),
        ({"requirements.txt": "flask\n", "app.py": FLASK}, "Python", "gunicorn app:site --bind 0.0.0.0:$PORT"),
        ({"requirements.txt": "", "shop/main.py": FASTAPI}, "Python", "uvicorn shop.main:app"),
        ({"requirements.txt": "", "src/shop/app.py": FASTAPI}, "Python", "PYTHONPATH=/app/src"),
        ({"requirements.txt": "-r more.txt\n", "main.py": "x = 1"}, "Python", "COPY . .\nRUN --mount"),
        ({"main.py": "print(1)"}, "Python", "exec python main.py"),
        ({"main.py": FASTAPI, "Procfile": "worker: no\nweb: python main.py --serve\n"}, "Python", "main.py --serve"),
        (
            {"pyproject.toml": '[project]\ndependencies = ["httpx>=0.2; x"]', "main.py": FASTAPI},
            "Python",
            "'httpx>=0.2; x' 'uvicorn'",
        ),
        ({"package.json": NODE, "package-lock.json": ""}, "Node", "npm ci"),
        ({"package.json": NODE}, "Node", 'CMD ["node", "server.js", "--x", "1"]'),
        ({"package.json": '{"scripts": {"start": "next start -p $PORT"}}'}, "Node", 'CMD ["npm", "start"]'),
        ({"package.json": "{}", "index.js": ""}, "Node", 'CMD ["node", "index.js"]'),
        ({"package.json": '{"scripts": {"start": "node a", "build": "tsc"}}'}, "Node", "RUN npm run build\n"),
        ({"package.json": NODE, "pnpm-lock.yaml": ""}, "Node", "pnpm install --frozen-lockfile"),
        ({"package.json": "{}", "index.html": ""}, "static site", "COPY . /site/"),
        ({"index.html": ""}, "static site", "COPY . /site/"),
        ({"dist/index.html": "", "README.md": ""}, "static site", "COPY dist /site/"),
    ],
)
def test_a_source_gets_the_recipe_it_asks_for(files: Mapping[str, str], kind: str, command: str) -> None:
    detected = recipe(files)
    assert detected.kind == kind
    assert command in detected.dockerfile
    assert "USER 65532:65532\n" in detected.dockerfile
    assert "PORT=8080" in detected.dockerfile


@pytest.mark.parametrize(
    ("files", "reason"),
    [
        ({}, "Its top level has: nothing"),
        ({"notes.txt": "", "a/b.c": ""}, "Its top level has: a, notes.txt"),
        ({"x.rb": ""}, "requirements.txt, pyproject.toml, main.py or app.py"),
        ({"go.mod": "", "lib.go": "package lib\n"}, "a library cannot be run"),
        ({"go.mod": "", "cmd/a/m.go": "package main", "cmd/b/m.go": "package main"}, "cmd/a, cmd/b"),
        ({"requirements.txt": "x"}, "no start command was detected"),
        ({"main.py": "def ("}, "main.py is not valid Python"),
        ({"pyproject.toml": "=", "main.py": ""}, "pyproject.toml is not valid TOML"),
        ({"pyproject.toml": "[tool.poetry]", "main.py": ""}, "requirements.txt"),
        ({"package.json": "{"}, "package.json is not valid JSON"),
        ({"package.json": "[]"}, "must be JSON objects"),
        ({"package.json": "{}"}, "no start command was detected"),
    ],
)
def test_an_unsupported_source_is_refused_with_the_reason(files: Mapping[str, str], reason: str) -> None:
    with pytest.raises(SourceError, match=re.escape(reason)):
        recipe(files)


@given(text=st.text(max_size=200), name=st.sampled_from(["package.json", "pyproject.toml", "main.py", "Procfile"]))
def test_whatever_a_file_holds_there_is_a_recipe_or_a_reason(text: str, name: str) -> None:
    try:
        detected = recipe({"main.py": "x = 1", name: text})
    except SourceError:
        return
    assert detected.dockerfile.startswith("FROM ")
