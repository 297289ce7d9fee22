"""The program that lists listening sockets in a sandbox and forwards to them, run on this machine."""

import contextlib
import platform
import random
import shutil
import socket
import subprocess
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from autoscaler.runtime.docker.pause_image import program
from autoscaler.runtime.sockets import parse
from tests.conftest import need
from tests.waiting import eventually

pytestmark = pytest.mark.skipif(platform.system() != "Linux", reason="the program speaks to the Linux kernel")

HERE = "127.0.0.2"
"""The instance's address; the program under test listens on 127.0.0.1 only."""
NATIVE = {"x86_64": "amd64", "aarch64": "arm64"}.get(platform.machine(), "")
EMULATORS = {"amd64": "qemu-x86_64-static", "arm64": "qemu-aarch64-static"}


@pytest.fixture(params=["amd64", "arm64"])
def net(request: pytest.FixtureRequest, tmp_path: Path) -> list[str]:
    """The command; of another architecture than this machine's where an emulator is installed."""
    emulator = [] if request.param == NATIVE else [shutil.which(EMULATORS[request.param])]
    need("QEMU", emulator != [None])
    path = tmp_path / "net"
    path.write_bytes(program(request.param, "net"))
    path.chmod(0o755)
    return [*map(str, emulator), str(path)]


@contextlib.contextmanager
def echoing(family: socket.AddressFamily = socket.AF_INET) -> Iterator[int]:
    """A server on loopback that echoes until its peer closes, then sends a dot."""
    address = "127.0.0.1" if family == socket.AF_INET else "::1"

    def serve(connection: socket.socket) -> None:
        with connection, contextlib.suppress(OSError):
            while data := connection.recv(65536):
                connection.sendall(data)
            connection.sendall(b".")

    def accept() -> None:
        with contextlib.suppress(OSError):
            while True:
                threading.Thread(target=serve, args=(server.accept()[0],), daemon=True).start()

    server = socket.create_server((address, 0), family=family)
    thread = threading.Thread(target=accept, daemon=True)
    thread.start()
    try:
        yield server.getsockname()[1]
    finally:
        # Closing does not wake a thread that waits in accept(2).
        with contextlib.suppress(OSError):
            server.shutdown(socket.SHUT_RDWR)
        server.close()
        thread.join()


@contextlib.contextmanager
def forwarding(net: list[str], port: int, family: str = "4") -> Iterator[subprocess.Popen[bytes]]:
    process = subprocess.Popen([*net, "forward", HERE, str(port), family])
    try:
        yield process
    finally:
        process.kill()
        process.wait()


def connect(port: int) -> socket.socket:
    return socket.create_connection((HERE, port), timeout=10)


async def connected(port: int) -> socket.socket:
    def attempt() -> socket.socket | None:
        with contextlib.suppress(ConnectionRefusedError):
            return connect(port)
        return None

    listeners = await eventually(attempt, condition="the forwarder listens")
    assert listeners is not None
    return listeners


def exchange(connection: socket.socket, data: bytes) -> bytes:
    """Send all of it from another thread, end, and read until the peer ends."""

    def send() -> None:
        connection.sendall(data)
        connection.shutdown(socket.SHUT_WR)

    sender = threading.Thread(target=send)
    sender.start()
    received = b"".join(iter(lambda: connection.recv(65536), b""))
    sender.join()
    return received


@pytest.mark.parametrize("family", ["4", "6"])
async def test_what_is_sent_arrives_both_ways_with_its_end(net: list[str], family: str) -> None:
    data = random.Random(7).randbytes(3_000_000)
    with (
        echoing(socket.AF_INET if family == "4" else socket.AF_INET6) as port,
        forwarding(net, port, family),
        await connected(port) as connection,
    ):
        assert exchange(connection, data) == data + b"."


async def test_many_connections_at_once_and_some_that_break_off(net: list[str]) -> None:
    with echoing() as port, forwarding(net, port) as process:
        (await connected(port)).close()
        open_ones = [connect(port) for _ in range(100)]
        for number, connection in enumerate(open_ones):
            connection.sendall(b"%d" % number)
        for connection in open_ones[::2]:
            connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\x01\0\0\0\0\0\0\0")
            connection.close()  # with a reset
        for number, connection in enumerate(open_ones):
            if number % 2:
                with connection:
                    assert exchange(connection, b"!") == b"%d!." % number
        assert process.poll() is None


async def test_connections_over_the_limit_wait_for_their_turn(net: list[str]) -> None:
    with echoing() as port, forwarding(net, port):
        (await connected(port)).close()
        held = [connect(port) for _ in range(512)]
        late = connect(port)
        late.sendall(b"late")
        for connection in held[:8]:
            connection.close()
        with late:
            assert exchange(late, b"!") == b"late!."
        for connection in held[8:]:
            connection.close()


async def test_it_ends_when_nothing_listens_any_more(net: list[str]) -> None:
    with echoing() as port, forwarding(net, port) as process:
        (await connected(port)).close()
        taken = port
    with forwarding(net, taken) as process:
        with contextlib.suppress(OSError), await connected(taken) as connection:
            assert connection.recv(1) == b""
        assert process.wait(10) == 0
    with pytest.raises(ConnectionRefusedError):
        connect(taken)


async def test_it_costs_nothing_while_nothing_happens(net: list[str]) -> None:
    with (
        echoing() as port,
        forwarding(net, port) as process,
        await connected(port) as idle,
        await connected(port) as half,
    ):
        half.shutdown(socket.SHUT_WR)
        assert half.recv(1) == b"."
        idle.sendall(b"x")
        assert idle.recv(1) == b"x"
        await eventually(lambda: sleeps(process.pid), condition="it sleeps, with one side ended")


def sleeps(pid: int) -> bool:
    return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] == "S"


def test_an_address_that_is_taken_is_an_error(net: list[str]) -> None:
    with socket.create_server((HERE, 0)) as server:
        assert subprocess.run([*net, "forward", HERE, str(server.getsockname()[1]), "4"]).returncode == 1
    assert subprocess.run(net).returncode == 1


def test_it_lists_what_listens(net: list[str]) -> None:
    with (
        socket.create_server(("127.0.0.1", 0)) as four,
        socket.create_server(("::1", 0), family=socket.AF_INET6) as six,
    ):
        text = subprocess.run([*net, "list"], capture_output=True, check=True).stdout.decode()
        ports = {(listener.address, listener.port) for listener in parse(text)}
        assert ("127.0.0.1", four.getsockname()[1]) in ports
        assert ("::1", six.getsockname()[1]) in ports
