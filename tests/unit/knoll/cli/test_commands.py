"""Commands that need no platform, and the messages of the others when there is none."""

import contextlib
import http.server
import json
import socket
import socketserver
import threading
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import yaml
from click.testing import CliRunner

from knoll.auth import kubeconfig
from knoll.cli import main
from knoll.cli.connection import from_kubeconfig
from knoll.cli.doctor import armed_instances
from knoll.cli.export import portable
from knoll.cli.identity import duration
from knoll.values.errors import BadRequestError
from tests.conftest import free_port


def test_the_dockerfile_that_would_be_used_is_printed_and_can_be_kept(tmp_path: Path) -> None:
    (tmp_path / "go.mod").write_text("module x\n")
    (tmp_path / "main.go").write_text("package main\n")
    done = CliRunner().invoke(main, ["build", str(tmp_path), "--print"])
    assert (done.exit_code, done.stdout.partition("\n")[0]) == (0, "FROM golang:1.24 AS build")
    (tmp_path / "Dockerfile").write_text(f"# kept\n{done.stdout}")
    again = CliRunner().invoke(main, ["build", str(tmp_path), "--print"])
    assert again.stdout == f"# kept\n{done.stdout}"


def test_an_unknown_folder_is_refused_with_what_was_looked_for(tmp_path: Path) -> None:
    (tmp_path / "notes.txt").write_text("")
    done = CliRunner().invoke(main, ["build", str(tmp_path), "--print"])
    assert done.exit_code == 1
    assert "Looked for: a Dockerfile; go.mod (Go)" in done.stderr
    assert "notes.txt" in done.stderr


def test_a_build_without_a_name_is_a_wrong_command_line(tmp_path: Path) -> None:
    (tmp_path / "Dockerfile").write_text("FROM scratch\n")
    done = CliRunner().invoke(main, ["build", str(tmp_path)])
    assert done.exit_code == 2
    assert "--tag" in done.stderr


@pytest.mark.parametrize("arguments", [["status"], ["traffic", "x"], ["rollback", "x"], ["logs", "x"], ["export"]])
def test_an_unreachable_platform_is_reported_with_what_to_do(arguments: list[str]) -> None:
    server = f"http://127.0.0.1:{free_port()}"
    done = CliRunner().invoke(main, [*arguments, "--server", server])
    assert done.exit_code == 3
    assert server in done.stderr
    assert "knoll up" in done.stderr


@pytest.mark.parametrize(("text", "seconds"), [("90s", 90), ("10m", 600), ("24h", 86400), ("365d", 31_536_000)])
def test_durations_of_tokens(text: str, seconds: int) -> None:
    assert duration(text) == seconds


@pytest.mark.parametrize("text", ["", "1", "h", "-1h", "1.5h", "1w", "9999999999s"])
def test_what_is_no_duration_is_refused(text: str) -> None:
    with pytest.raises(BadRequestError, match="such as 24h"):
        duration(text)


@pytest.mark.parametrize(
    "text",
    [
        "",
        "- a\n",
        "{",
        "current-context: x\ncontexts: []\n",
        "current-context: x\ncontexts: [{name: x, context: {}}]\n",
    ],
)
def test_a_kubeconfig_that_names_no_server_is_refused(tmp_path: Path, text: str) -> None:
    (tmp_path / "config").write_text(text)
    with pytest.raises(BadRequestError, match="is not a kubeconfig with a server in its current context"):
        from_kubeconfig(tmp_path / "config")


def test_a_kubeconfig_with_a_broken_authority_is_refused(tmp_path: Path) -> None:
    document = kubeconfig.document("https://192.0.2.1", authority="no certificate")
    (tmp_path / "config").write_text(yaml.safe_dump(document))
    with pytest.raises(BadRequestError, match="is not a kubeconfig"):
        from_kubeconfig(tmp_path / "config")


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_each_shell_gets_its_completion(shell: str) -> None:
    done = CliRunner().invoke(main, ["completion", shell])
    assert done.exit_code == 0
    assert "_KNOLL_COMPLETE" in done.stdout


def test_what_belongs_to_this_platform_is_left_out_of_an_export() -> None:
    annotations = {"serving.knative.dev/creator": "me", "mine": "kept"}
    meta = {
        "name": "x",
        "namespace": "y",
        "uid": "1",
        "resourceVersion": "2",
        "generation": 3,
        "annotations": annotations,
    }
    exported = portable({"apiVersion": "v", "kind": "Service", "metadata": meta, "spec": {"a": 1}, "status": {}})
    assert exported["metadata"] == {"name": "x", "namespace": "y", "annotations": {"mine": "kept"}}
    assert exported["spec"] == {"a": 1}
    assert "status" not in exported


def doctor(server: str) -> tuple[int, dict[str, list[dict[str, Any]]]]:
    """Run it; returns its exit code, and its findings by what was looked at."""
    done = CliRunner().invoke(main, ["doctor", "--server", server, "-o", "json"])
    findings: dict[str, list[dict[str, Any]]] = {}
    for finding in json.loads(done.stdout):
        findings.setdefault(finding["what"], []).append(finding)
    return done.exit_code, findings


def test_the_doctor_reports_to_scripts_which_port_is_taken_and_the_remedy(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("KNOLL_DOCKER_SOCKET", str(tmp_path / "engine.sock"))
    server = f"http://127.0.0.1:{free_port()}"
    with socket.socket() as taken:
        taken.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        with contextlib.suppress(OSError):  # another process has it: as good
            taken.bind(("127.0.0.1", 8443))
            taken.listen()
        exit_code, findings = doctor(server)
    assert exit_code == 1
    [port] = [finding for finding in findings["ports"] if finding["found"].startswith("127.0.0.1:8443: ")]
    assert not port["good"]
    assert "--https-port" in port["mend"]
    [platform] = findings["platform"]
    assert platform["found"].startswith(f"{server}: ")
    assert not platform["good"]


@pytest.mark.parametrize(
    ("built", "compiler", "bound", "text", "fix"),
    [
        (True, False, "3", "their program is compiled; up to 3", ""),
        (False, True, "3", "when it is needed; up to 3", ""),
        (False, False, "3", "off: their program is not compiled", "apt-get install gcc"),
        (True, True, "0", "off (KNOLL_ARMED_INSTANCES=0)", ""),
    ],
)
def test_the_doctor_reports_whether_instances_can_be_armed(
    built: bool, compiler: bool, bound: str, text: str, fix: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    programs = tmp_path / "runtime/docker/programs/bin"
    programs.mkdir(parents=True)
    if built:
        (programs / "arm-amd64-0123").touch()
    if compiler:
        (tmp_path / "gcc").touch(0o755)
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.setenv("KNOLL_ARMED_INSTANCES", bound)
    package = SimpleNamespace(submodule_search_locations=[str(tmp_path)])
    monkeypatch.setattr("importlib.util.find_spec", lambda _: package)
    [finding] = armed_instances("")
    assert finding.ok, "everything else works without them"
    assert text in finding.state
    assert fix in finding.fix
    assert bool(fix) is bool(finding.fix)


class EngineAnswers(http.server.BaseHTTPRequestHandler):
    """What the doctor asks of an engine."""

    def address_string(self) -> str:
        return "a Unix socket"

    def do_GET(self) -> None:
        status, body = self.server.answers[self.path]  # type: ignore[attr-defined]
        self.send_response(status)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)


@contextlib.contextmanager
def engine(path: Path, version: tuple[int, bytes]) -> Iterator[None]:
    with socketserver.UnixStreamServer(str(path), EngineAnswers) as server:
        server.answers = {"/version": version, "/info": (200, b'{"SecurityOptions": ["name=rootless"]}')}  # type: ignore[attr-defined]
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        try:
            yield
        finally:
            server.shutdown()
            thread.join()


@pytest.mark.parametrize(
    ("version", "good", "text"),
    [
        ((200, b'{"Version": "29.1"}'), True, "Docker 29.1 at "),
        ((500, b"{}"), False, ": GET /version returned 500 "),
        ((200, b"[]"), False, ": GET /version did not return a JSON object"),
        ((200, b"<html>"), False, ": Expecting value"),
        (None, False, ": [Errno 2] No such file or directory"),
    ],
    ids=["runs", "fails", "answers with a list", "answers with HTML", "does not run"],
)
def test_the_doctor_reports_whether_the_engine_answers(
    version: tuple[int, bytes] | None, good: bool, text: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "engine.sock"
    monkeypatch.setenv("KNOLL_DOCKER_SOCKET", str(path))
    with engine(path, version) if version else contextlib.nullcontext():
        _, findings = doctor(f"http://127.0.0.1:{free_port()}")
    [finding] = findings["engine"]
    assert finding["good"] is good
    assert text in finding["found"]
    assert str(path) in finding["found"]
    assert finding["mend"].startswith("start Docker") is not good
    namespaces = [finding["found"] for finding in findings.get("user namespaces", ())]
    assert namespaces == (["the engine runs without root"] if version else [])
