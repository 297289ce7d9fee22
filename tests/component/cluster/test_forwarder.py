"""Connections between machines: which machines may connect, to which services, and what is forwarded."""

import asyncio
import contextlib
import os
import socket
import ssl
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from knoll.auth.certificates import Issued
from knoll.cluster import forwarder
from knoll.cluster.forwarder import Egress, Ingress, Remote
from knoll.cluster.node_folder import NodeFolder
from knoll.values import versions
from tests.component.cluster.certified import authority, machine
from tests.waiting import eventually


@pytest.fixture(scope="module")
def issuer() -> Issued:
    return authority()


@contextlib.asynccontextmanager
async def echo() -> AsyncIterator[int]:
    """A service that sends its name, and then echoes what it receives."""

    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        open_ones.add(task)
        try:
            writer.write(b"echo:")
            while data := await reader.read(65536):
                writer.write(data)
                await writer.drain()
        finally:
            writer.transport.abort()
            open_ones.discard(task)

    open_ones: set[asyncio.Task[None]] = set()
    server = await asyncio.start_server(answer, "127.0.0.1")
    async with server:
        yield port_of(server)
    await eventually(lambda: not open_ones, condition="no connection to the service")


_dialled: list[asyncio.StreamWriter] = []


@pytest.fixture(autouse=True)
async def closed() -> AsyncIterator[None]:
    yield
    for writer in _dialled:
        writer.transport.abort()
    _dialled.clear()
    await asyncio.sleep(0)


async def dial(host: str, port: int, **tls: Any) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
    """A connection that is closed after the test."""
    reader, writer = await asyncio.open_connection(host, port, **tls)
    _dialled.append(writer)
    return reader, writer


def port_of(server: asyncio.Server) -> int:
    return int(server.sockets[0].getsockname()[1])


class Pair:
    """n1 offers `redis` to its members; n2 has it on a port of its own."""

    def __init__(self, first: NodeFolder, second: NodeFolder, service: int) -> None:
        self.members = frozenset({"n1", "n2"})
        self.first, self.second, self.service = first, second, service
        self.ingress = Ingress(first, {"knoll-redis": ("127.0.0.1", service)}, lambda: self.members)
        self.ingress_port = self.port = 0

    @contextlib.asynccontextmanager
    async def open(self) -> AsyncIterator["Pair"]:
        async with await self.ingress.start("127.0.0.1", 0) as server:
            self.ingress_port = port_of(server)
            async with await self.egress().start("127.0.0.1", 0) as local:
                self.port = port_of(local)
                yield self

    def egress(self, node: str = "n1", service: str = "knoll-redis", folder: NodeFolder | None = None) -> Egress:
        return Egress(folder or self.second, Remote(node, "127.0.0.1", self.ingress_port, service))


@pytest.fixture
async def pair(issuer: Issued, tmp_path: Path) -> AsyncIterator[Pair]:
    first, second = machine(issuer, "n1", tmp_path / "1"), machine(issuer, "n2", tmp_path / "2")
    async with echo() as service, Pair(first, second, service).open() as made:
        yield made


async def ended(reader: asyncio.StreamReader) -> bool:
    """Whether the connection ends without an answer."""
    try:
        return await asyncio.wait_for(reader.read(), 20) == b""
    except OSError:
        return True


async def refused(pair: Pair, context: ssl.SSLContext) -> bool:
    """Whether a TLS client gets nothing."""
    try:
        reader, writer = await dial("127.0.0.1", pair.ingress_port, ssl=context, server_hostname="n1")
    except OSError:
        return True
    gone = await ended(reader)
    writer.transport.abort()
    return gone and pair.ingress.connections == 0


async def test_bytes_pass_both_ways(pair: Pair) -> None:
    reader, writer = await dial("127.0.0.1", pair.port)
    sent = bytes(range(256)) * 4096
    writing = asyncio.create_task(_write(writer, sent))
    assert await reader.readexactly(len(sent) + 5) == b"echo:" + sent
    await writing
    writer.close()


async def _write(writer: asyncio.StreamWriter, data: bytes) -> None:
    writer.write(data)
    await writer.drain()


@pytest.mark.skipif(os.geteuid() != 0, reason="a process of another user is started")
async def test_a_port_for_root_refuses_other_users_of_this_machine(pair: Pair) -> None:
    egress = Egress(pair.second, Remote("n1", "127.0.0.1", pair.ingress_port, "knoll-redis"), root_only=True)
    read = "import socket, sys; print(socket.create_connection(('127.0.0.1', int(sys.argv[1]))).recv(5))"
    async with await egress.start("127.0.0.1", 0) as server:
        for user, received in ((0, b"b'echo:'\n"), (65534, b"")):
            command = ["setpriv", f"--reuid={user}", "--clear-groups", "python3", "-c", read, str(port_of(server))]
            process = await asyncio.create_subprocess_exec(
                *command, stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.DEVNULL
            )
            output, _ = await asyncio.wait_for(process.communicate(), 30)
            assert output.replace(b"b''\n", b"") == received, user
    await eventually(lambda: not pair.ingress.connections, condition="no connection")


async def test_the_end_of_a_connection_reaches_the_service(pair: Pair) -> None:
    reader, writer = await dial("127.0.0.1", pair.port)
    assert await reader.readexactly(5) == b"echo:"
    writer.close()
    await eventually(lambda: not pair.ingress.connections, condition="no connection")


async def test_a_machine_that_is_not_a_member_is_refused(pair: Pair, issuer: Issued, tmp_path: Path) -> None:
    stranger = machine(issuer, "n3", tmp_path / "3")
    reader, writer = await pair.egress(folder=stranger).connect()
    assert await ended(reader)
    assert pair.ingress.connections == 0
    writer.close()


async def test_a_machine_of_another_platform_is_refused(pair: Pair, tmp_path: Path) -> None:
    foreign = machine(authority(), "n2", tmp_path / "3")
    with pytest.raises(ssl.SSLError):
        await pair.egress(folder=foreign).connect()
    # Also if it does not verify the other machine.
    egress = pair.egress(folder=foreign)
    egress.context.check_hostname, egress.context.verify_mode = False, ssl.CERT_NONE
    assert await refused(pair, egress.context)


async def test_a_client_without_a_certificate_is_refused(pair: Pair) -> None:
    context = ssl.create_default_context(cafile=str(pair.first.authority))
    context.set_alpn_protocols(["knoll-redis"])
    assert await refused(pair, context)


async def test_plain_bytes_get_no_answer(pair: Pair) -> None:
    reader, writer = await dial("127.0.0.1", pair.ingress_port)
    writer.write(b"PING\r\n" * 100)
    assert b"PONG" not in await reader.read()
    assert pair.ingress.connections == 0


async def test_another_machine_at_the_address_is_not_mistaken_for_the_service(pair: Pair) -> None:
    with pytest.raises(ssl.SSLCertVerificationError, match="Hostname mismatch"):
        await pair.egress(node="n9").connect()


async def test_a_service_that_is_not_offered_is_refused(pair: Pair) -> None:
    with pytest.raises(OSError, match=r".*"):
        await pair.egress(service="knoll-logs").connect()
    assert pair.ingress.connections == 0


@pytest.mark.parametrize(
    ("version", "accepted"), [("0.2.9", True), ("0.3.5", True), ("0.4.0", True), ("0.1.0", False), ("0.5.0", False)]
)
async def test_a_machine_of_a_distant_version_is_refused_with_the_reason(
    issuer: Issued, tmp_path: Path, version: str, accepted: bool
) -> None:
    first, second = machine(issuer, "n1", tmp_path / "1"), machine(issuer, "n2", tmp_path / "2")
    offered = versions.accepted_protocols("knoll-redis", "v0.3.0")
    async with echo() as service:
        ingress = Ingress(first, dict.fromkeys(offered, ("127.0.0.1", service)), lambda: {"n1", "n2"})
        async with await ingress.start("127.0.0.1", 0) as server:
            remote = Remote("n1", "127.0.0.1", port_of(server), versions.protocol("knoll-redis", version))
            egress = Egress(second, remote)
            if accepted:
                reader, writer = await egress.connect()
                assert await reader.readexactly(5) == b"echo:"
                writer.close()
                await eventually(lambda: not ingress.connections, condition="no connection")
            else:
                with pytest.raises(OSError, match=r"n1 does not accept .* upgrade one minor version at a time"):
                    await egress.connect()
                assert ingress.connections == 0


async def test_a_machine_that_is_removed_is_cut_off(pair: Pair) -> None:
    reader, writer = await dial("127.0.0.1", pair.port)
    assert await reader.readexactly(5) == b"echo:"
    pair.members = frozenset({"n1"})
    pair.ingress.drop_strangers()
    assert await ended(reader)
    writer.close()
    again, _ = await dial("127.0.0.1", pair.port)
    assert await ended(again)


async def test_a_renewed_certificate_counts_for_new_connections(pair: Pair, issuer: Issued) -> None:
    before = (pair.first.path / "node.pem").read_bytes()
    machine(issuer, "n1", pair.first.path)
    assert (pair.first.path / "node.pem").read_bytes() != before
    pair.first.load(pair.ingress.context)
    _, writer = await pair.egress().connect()
    shown = writer.get_extra_info("ssl_object").getpeercert(binary_form=True)
    assert ssl.DER_cert_to_PEM_cert(shown) == (pair.first.path / "node.pem").read_text()
    writer.close()


async def test_a_service_that_does_not_run_ends_the_connection(issuer: Issued, tmp_path: Path) -> None:
    first, second = machine(issuer, "n1", tmp_path / "1"), machine(issuer, "n2", tmp_path / "2")
    async with echo() as service:
        pass
    async with Pair(first, second, service).open() as pair:
        reader, _ = await dial("127.0.0.1", pair.port)
        assert await ended(reader)


def keep_alive_timers(port: int) -> list[str]:
    """Timers of the open connections that a server on this port accepted; 02 is keep-alive. Source: proc_net_tcp."""
    rows = [line.split() for line in Path("/proc/net/tcp").read_text().splitlines()[1:]]
    return [row[5][:2] for row in rows if row[1].endswith(f":{port:04X}") and row[3] == "01"]


async def test_a_machine_that_is_lost_without_a_word_is_noticed(pair: Pair) -> None:
    reader, writer = await pair.egress().connect()
    assert await reader.readexactly(5) == b"echo:"
    connection = writer.get_extra_info("socket")
    assert connection.getsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE) == 1
    assert 0 < connection.getsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT) <= 60_000
    await eventually(lambda: keep_alive_timers(pair.ingress_port) == ["02"], condition="a keep-alive timer")
    writer.close()


async def test_an_egress_has_a_limit_of_connections(pair: Pair, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(forwarder, "MAX_CONNECTIONS", 1)
    reader, writer = await dial("127.0.0.1", pair.port)
    assert await reader.readexactly(5) == b"echo:"
    other, _ = await dial("127.0.0.1", pair.port)
    assert await ended(other)
    writer.close()
    await writer.wait_closed()

    async def answers() -> bool:
        again, closing = await dial("127.0.0.1", pair.port)
        try:
            return await again.read(5) == b"echo:"
        except OSError:
            return False
        finally:
            closing.transport.abort()

    await eventually(answers, condition="room for another connection")


async def test_another_authority_counts_for_new_connections(pair: Pair) -> None:
    other = authority()
    machine(other, "n1", pair.first.path)
    machine(other, "n2", pair.second.path)
    pair.first.load(pair.ingress.context)
    egress = pair.egress()  # reads the files now
    reader, writer = await egress.connect()
    assert await reader.readexactly(5) == b"echo:"
    writer.close()
