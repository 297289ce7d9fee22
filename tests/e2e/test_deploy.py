"""One command from a folder to a URL, and moving its traffic, as a person types it."""

import json
import subprocess
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path

import httpx
import pytest
import yaml

from tests.conftest import need
from tests.e2e.platform import Platform

GO = """package main

import (
	"fmt"
	"net/http"
	"os"
)

func main() {
	http.HandleFunc("/", func(w http.ResponseWriter, r *http.Request) { fmt.Fprint(w, "go %s") })
	panic(http.ListenAndServe(":"+os.Getenv("PORT"), nil))
}
"""
FASTAPI = 'from fastapi import FastAPI\n\napp = FastAPI()\n\n\n@app.get("/")\ndef root() -> str:\n    return "python"\n'
NODE = (
    'require("http").createServer((_, answer) => answer.end("node")).listen(process.env.PORT)\n'
    'process.on("SIGTERM", () => process.exit(0))\n'
)
OWN = "FROM python:3.13-slim\nWORKDIR /s\nRUN echo own > index.html\nUSER 1000\nCMD exec python -m http.server $PORT\n"


def knoll(platform: Platform, *arguments: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "knoll.cli", arguments[0], "--server", platform.api, *arguments[1:]]
    return subprocess.run(command, capture_output=True, text=True, timeout=280)


def write(folder: Path, files: Mapping[str, str]) -> Path:
    for name, text in files.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text(text)
    return folder


def get(platform: Platform, name: str, path: str = "/") -> httpx.Response:
    return httpx.get(f"{platform.gateway}{path}", headers={"Host": f"{name}.default.localhost"}, timeout=60)


@pytest.fixture
def names(platform: Platform) -> Iterator[list[str]]:
    """Services that the test deploys; taken away after it."""
    keys_found: list[str] = []
    yield keys_found
    for name in keys_found:
        platform.kubectl("delete", "ksvc", name, "--ignore-not-found")
        listed = ["docker", "image", "ls", "--format={{.Repository}}:{{.Tag}}", f"--filter=reference={name}"]
        for tag in subprocess.run(listed, capture_output=True, text=True).stdout.split():
            subprocess.run(["docker", "image", "rm", "-f", tag], capture_output=True)


@pytest.mark.parametrize(
    ("name", "base", "files", "answer"),
    [
        ("from-go", "golang:1.24", {"go.mod": "module x\n\ngo 1.22\n", "main.go": GO % "one"}, "go one"),
        ("from-python", "python:3.13-slim", {"requirements.txt": "fastapi\n", "main.py": FASTAPI}, '"python"'),
        ("from-node", "node:22-slim", {"package.json": '{"main": "s.js"}', "s.js": NODE}, "node"),
        ("from-static", "golang:1.24", {"index.html": "site", ".env": "hidden", "a/b.txt": "b"}, "site"),
        ("from-own", "python:3.13-slim", {"Dockerfile": OWN}, "own\n"),
    ],
)
def test_a_folder_becomes_a_url_with_one_command(
    platform: Platform, tmp_path: Path, names: list[str], name: str, base: str, files: Mapping[str, str], answer: str
) -> None:
    need("DOCKER", subprocess.run(["docker", "image", "inspect", base], capture_output=True).returncode == 0)
    names.append(name)
    done = knoll(platform, "deploy", str(write(tmp_path, files)), "--name", name)
    assert done.returncode == 0, done.stdout + done.stderr
    assert done.stdout.strip() == f"http://{name}.default.localhost:{platform.gateway.rpartition(':')[2]}"
    assert f"{name}-00001" in done.stderr
    assert get(platform, name).text == answer
    if name == "from-static":
        assert get(platform, name, "/a/b.txt").text == "b"
        assert [get(platform, name, path).status_code for path in ("/.env", "/a/", "/none")] == [404, 404, 404]


def test_traffic_moves_back_and_forth_with_a_table(platform: Platform, tmp_path: Path, names: list[str]) -> None:
    name = "shifted"
    names.append(name)
    for word in ("one", "two"):
        files = {"go.mod": "module x\n\ngo 1.22\n", "main.go": GO % word}
        done = knoll(platform, "deploy", str(write(tmp_path, files)), "--name", name, "-o", "json")
        assert done.returncode == 0, done.stdout + done.stderr
    assert json.loads(done.stdout)["latestReadyRevision"] == f"{name}-00002"
    assert get(platform, name).text == "go two"

    done = knoll(platform, "rollback", name)
    assert done.returncode == 0, done.stderr
    assert [line.split() for line in done.stdout.splitlines()] == [
        ["REVISION", "BEFORE", "AFTER"],
        [f"{name}-00002", "100", "%", "0", "%"],
        [f"{name}-00001", "0", "%", "100", "%"],
    ]
    assert {get(platform, name).text for _ in range(10)} == {"go one"}

    assert knoll(platform, "traffic", name, "00001=50", "00002=50").returncode == 0
    body = json.loads(knoll(platform, "status", "-o", "json").stdout)
    shares = next(row["traffic"] for row in body if row["name"] == name)
    assert shares == {f"{name}-00001": 50, f"{name}-00002": 50}

    assert knoll(platform, "export", name, "--dir", str(tmp_path / "out")).returncode == 0
    platform.kubectl("delete", "ksvc", name)
    for file in sorted((tmp_path / "out").iterdir()):
        platform.kubectl("apply", "-f", str(file))
        platform.kubectl("wait", f"ksvc/{name}", "--for=condition=Ready", "--timeout=60s")
    body = json.loads(knoll(platform, "status", "-o", "json").stdout)
    assert next(row["traffic"] for row in body if row["name"] == name) == shares
    assert {get(platform, name).text for _ in range(30)} == {"go one", "go two"}

    assert knoll(platform, "traffic", name, "--to-latest").returncode == 0
    assert {get(platform, name).text for _ in range(10)} == {"go two"}


def test_what_is_exported_applies_again(platform: Platform, tmp_path: Path, names: list[str]) -> None:
    name = "exported"
    names.append(name)
    files = {"go.mod": "module x\n\ngo 1.22\n", "main.go": GO % "three"}
    assert knoll(platform, "deploy", str(write(tmp_path, files)), "--name", name).returncode == 0
    done = knoll(platform, "export", name)
    assert "has no registry" in done.stderr
    assert set(yaml.safe_load(done.stdout)["metadata"]) == {"name", "namespace"}
    platform.kubectl("delete", "ksvc", name)
    platform.kubectl("apply", "-f", "-", stdin=done.stdout)
    platform.kubectl("wait", f"ksvc/{name}", "--for=condition=Ready", "--timeout=60s")
    assert get(platform, name).text == "go three"


def test_a_deploy_that_fails_keeps_what_serves(platform: Platform, tmp_path: Path, names: list[str]) -> None:
    name = "kept"
    names.append(name)
    files = {"go.mod": "module x\n\ngo 1.22\n", "main.go": GO % "good"}
    assert knoll(platform, "deploy", str(write(tmp_path, files)), "--name", name).returncode == 0
    done = knoll(
        platform, "deploy", str(write(tmp_path, {"main.go": "package main\nfunc main() { broken }\n"})), "--name", name
    )
    assert done.returncode == 1
    assert "undefined: broken" in done.stderr
    assert get(platform, name).text == "go good"


@pytest.mark.parametrize(
    ("arguments", "code", "text"),
    [
        (("traffic", "unknown", "a=100"), 4, "unknown"),
        (("traffic", "unknown", "a=99"), 1, "add up to 99"),
        (("rollback", "unknown"), 4, "unknown"),
        (("traffic", "unknown", "a=100", "--to-latest"), 2, "mutually exclusive"),
    ],
)
def test_a_wrong_command_is_refused_with_the_reason(
    platform: Platform, arguments: tuple[str, ...], code: int, text: str
) -> None:
    done = knoll(platform, *arguments)
    assert done.returncode == code
    assert text in done.stderr
