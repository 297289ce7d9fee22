"""The first process of an armed container, run on this machine."""

import contextlib
import json
import os
import platform
import shutil
import signal
import socket
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from autoscaler.runtime.docker.programs import build
from tests.conftest import free_port, need

pytestmark = pytest.mark.skipif(platform.system() != "Linux", reason="the program speaks to the Linux kernel")

TOKEN = "0123456789abcdef" * 2
NATIVE = {"x86_64": "amd64", "aarch64": "arm64"}.get(platform.machine(), "")
EMULATORS = {"amd64": "qemu-x86_64-static", "arm64": "qemu-aarch64-static"}
SHOW = """
import json, os, signal, sys
print(json.dumps({
    "argv": sys.argv[1:], "environment": dict(os.environ), "pid": os.getpid(), "stdin": sys.stdin.read(),
    "folder": os.getcwd(), "descriptors": sorted(os.listdir("/proc/self/fd")),
    "terminate": signal.getsignal(signal.SIGTERM) is signal.SIG_DFL,
    "blocked": [line for line in open("/proc/self/status") if line.startswith(("SigBlk", "SigIgn"))],
}))
"""

Arm = Callable[..., "Waiting"]


class Waiting:
    """The program, and connections to it."""

    def __init__(self, process: subprocess.Popen[bytes], port: int) -> None:
        self.process, self.port = process, port
        self.connections = contextlib.ExitStack()

    def connect(self) -> socket.socket:
        while True:
            with contextlib.suppress(ConnectionRefusedError):
                return self.connections.enter_context(socket.create_connection(("127.0.0.1", self.port), timeout=10))
            assert self.process.poll() is None, self.process.communicate()

    def authenticated(self) -> socket.socket:
        connection = self.connect()
        connection.sendall(TOKEN.encode())
        assert connection.recv(1) == b"w"
        return connection


@pytest.fixture(params=["amd64", "arm64"])
def binary(request: pytest.FixtureRequest, tmp_path: Path) -> list[str]:
    """The command; of another architecture than this machine's where a compiler and an emulator are installed."""
    emulator = [] if request.param == NATIVE else [shutil.which(EMULATORS[request.param])]
    need("QEMU", emulator != [None])
    need("COMPILER", bool(build.compiler(request.param)))
    return [*map(str, emulator), str(build.build(build.ARM, request.param, tmp_path / "bin"))]


@pytest.fixture
def native(tmp_path: Path) -> list[str]:
    need("COMPILER", bool(build.compiler(NATIVE)))
    return [str(build.build(build.ARM, NATIVE, tmp_path / "bin"))]


@contextlib.contextmanager
def started(command: list[str], *argv: str, **more: object) -> Iterator[Waiting]:
    port = free_port()
    process = subprocess.Popen(
        [*command, TOKEN, str(port), *argv],
        stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE, **more,  # type: ignore[call-overload]
    )  # fmt: skip
    waiting = Waiting(process, port)
    try:
        with waiting.connections:
            yield waiting
    finally:
        process.kill()
        process.communicate()


def test_a_released_program_runs_as_if_it_had_been_started_directly(native: list[str], tmp_path: Path) -> None:
    environment = {"PATH": "/usr/bin:/bin", "EMPTY": "", "SPACED": "a b", "LC_ALL": "C.UTF-8"}
    argv = (sys.executable, "-Ic", SHOW, "", "two words", "ü")
    script = [sys.executable, "-Ic", SHOW, *argv[3:]]
    done = subprocess.run(script, input=b"typed", env=environment, cwd=tmp_path, capture_output=True)
    direct = json.loads(done.stdout)
    with started(native, *argv, env=environment, cwd=tmp_path) as waiting:
        connection = waiting.authenticated()
        connection.sendall(b"r")
        assert connection.recv(1) == b"g"
        assert connection.recv(1) == b"", "the execution closes all sockets"
        output, _ = waiting.process.communicate(b"typed")
        shown = json.loads(output)
        assert shown.pop("pid") == waiting.process.pid
    direct.pop("pid")
    assert shown == direct


def test_nothing_but_the_token_makes_it_do_anything(binary: list[str]) -> None:
    with started(binary, "/bin/true") as waiting:
        almost = TOKEN[:-1].encode() + b"x"
        for foreign in (b"r", b"r" * 64, TOKEN[::-1].encode(), almost, b"\0" * 32, b"GET / HTTP/1.1"):
            with waiting.connect() as connection:
                connection.sendall(foreign)
                connection.shutdown(socket.SHUT_WR)
                with contextlib.suppress(ConnectionResetError):
                    assert connection.recv(1) == b""
        waiting.authenticated().close()
        assert waiting.process.poll() is None


def test_connections_without_the_token_do_not_end_one_with_it(binary: list[str]) -> None:
    with started(binary, "/bin/true") as waiting:
        connection = waiting.authenticated()
        for _ in range(20):
            waiting.connect()
        waiting.authenticated().close()
        connection.sendall(b"?")
        connection.sendall(b"r")
        assert connection.recv(1) == b"g"


def test_a_connection_that_ends_is_followed_by_another(binary: list[str]) -> None:
    with started(binary, "/bin/true") as waiting:
        for _ in range(10):
            waiting.authenticated().close()
        connection = waiting.connect()
        for byte in TOKEN:  # in as many packets
            connection.sendall(byte.encode())
        assert connection.recv(1) == b"w"


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT, signal.SIGQUIT, signal.SIGHUP])
def test_a_signal_ends_it_while_it_waits(binary: list[str], number: signal.Signals) -> None:
    def handled() -> None:  # a shell ignores some for its jobs in the background
        signal.signal(number, signal.SIG_DFL)

    with started(binary, "/bin/true", preexec_fn=handled) as waiting:
        waiting.authenticated()
        waiting.process.send_signal(number)
        assert waiting.process.wait(10) in (128 + number, -number)


def answer(command: list[str], *argv: str, **more: object) -> tuple[bytes, "subprocess.Popen[bytes]", bytes]:
    """Release a program; returns the answer, the process that ended or still waits, and what it wrote to stderr."""
    with started(command, *argv, **more) as waiting:
        connection = waiting.authenticated()
        connection.sendall(b"r")
        answered = connection.recv(1)
        if answered == b"n":
            assert waiting.process.poll() is None
            connection.sendall(b"r")
            assert connection.recv(1) == b"n", "it goes on waiting"
            return answered, waiting.process, b""
        _, errors = waiting.process.communicate(timeout=10)
        return answered, waiting.process, errors


@pytest.mark.parametrize(
    ("program", "path", "executed"),
    [
        ("/bin/true", None, True),
        ("true", "/nowhere:/bin", True),
        ("true", "/bin/", True),
        ("true", None, False),
        ("true", "", False),
        ("missing", "/usr/bin:/bin", False),
        ("/missing", "/bin", False),
        ("", "/bin", False),
        ("./own", "/bin", True),
        ("folder/own", "/bin", True),
        ("own", ".", False),  # runc refuses what a relative folder of PATH holds
        ("own", "", False),
        ("own", ":/bin", False),
        ("./plain", "/bin", False),
        ("./folder", "/bin", False),
        ("folder", "{here}:/bin", False),
        ("both", "{here}/folder:{here}", True),  # the first is not executable
        ("a/../own", "/bin", False),
    ],
)
def test_a_program_is_looked_up_as_by_the_engine(
    native: list[str], tmp_path: Path, program: str, path: str | None, executed: bool
) -> None:
    (tmp_path / "folder").mkdir()
    modes = {"own": 0o755, "folder/own": 0o755, "plain": 0o644, "folder/both": 0o644, "both": 0o755}
    for name, mode in modes.items():
        shutil.copy("/bin/true", tmp_path / name)
        (tmp_path / name).chmod(mode)
    environment = {} if path is None else {"PATH": path.format(here=tmp_path)}
    unprivileged = {"user": 65534, "group": 65534, "extra_groups": []} if os.getuid() == 0 else {}
    for folder in (tmp_path, *tmp_path.parents[:3]):
        folder.chmod(0o755)
    answered, process, errors = answer(native, program, env=environment, cwd=tmp_path, **unprivileged)
    assert (answered, errors) == (b"g" if executed else b"n", b"")
    if executed:
        assert process.returncode == 0


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"#!/nowhere/interpreter\n", "no such file or directory"),
        (b"neither", "exec format error"),
        (b"", "exec format error"),
        (b"#!/etc/passwd\n", "permission denied"),
    ],
)
def test_an_execution_that_fails_is_written_as_the_engine_writes_it(
    native: list[str], tmp_path: Path, content: bytes, message: str
) -> None:
    script = tmp_path / "script"
    script.write_bytes(content)
    script.chmod(0o755)
    answered, process, errors = answer(native, str(script))
    assert (answered, process.returncode, errors.decode()) == (b"g", 1, f"exec {script}: {message}\n")


def test_a_program_that_is_not_built_is_compiled_when_it_is_needed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    need("COMPILER", bool(build.compiler(NATIVE)))
    monkeypatch.setattr(build, "BIN", tmp_path / "absent")
    compiled = build.program(build.ARM, NATIVE)
    assert compiled[:4] == b"\x7fELF"
    monkeypatch.setattr(build, "BIN", tmp_path)
    build.build(build.ARM, NATIVE, tmp_path)
    monkeypatch.setenv("PATH", "")
    assert build.program(build.ARM, NATIVE) == compiled


def test_without_a_compiler_the_message_names_what_to_install(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(build, "BIN", tmp_path)
    monkeypatch.setenv("PATH", "")
    with pytest.raises(build.ProgramError, match=r"arm\.c is not compiled for amd64, and there is no C compiler"):
        build.program(build.ARM, "amd64")
