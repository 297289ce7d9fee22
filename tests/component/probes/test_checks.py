"""Probes against real sockets."""

import asyncio
import socket
import ssl
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import asynccontextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path

import h2.config
import h2.connection
import h2.events
import pytest
from aiohttp import web
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

from autoscaler.probes.checks import Checker, Result
from autoscaler.probes.spec import Check, ExecCheck, GrpcCheck, HttpCheck, TcpCheck
from autoscaler.runtime.model import ExecResult
from tests.conftest import free_port

HOST = "127.0.0.1"
Handler = Callable[[web.Request], Awaitable[web.Response]]


async def nothing_to_run(_: Sequence[str], __: float) -> ExecResult:
    raise AssertionError("no command was to be run")


async def ask(check: Check, seconds: float = 5.0) -> Result:
    async with Checker() as checker:
        return await checker.check(check, HOST, nothing_to_run, seconds)


@asynccontextmanager
async def serving(handler: Handler, tls: ssl.SSLContext | None = None) -> AsyncIterator[int]:
    app = web.Application()
    app.router.add_route("*", "/{path:.*}", handler)
    runner = web.AppRunner(app, shutdown_timeout=0.1)
    await runner.setup()
    port = free_port()
    await web.TCPSite(runner, HOST, port, ssl_context=tls).start()
    try:
        yield port
    finally:
        await runner.cleanup()


def answering(status: int, **headers: str) -> Handler:
    async def answer(_: web.Request) -> web.Response:
        return web.Response(status=status, text="the reason", headers=headers)

    return answer


@pytest.mark.parametrize(("status", "ok"), [(200, True), (204, True), (399, True), (400, False), (503, False)])
async def test_statuses_from_200_to_399_are_fine(status: int, ok: bool) -> None:
    async with serving(answering(status)) as port:
        result = await ask(HttpCheck(port))
    assert result.ok == ok
    if not ok:
        assert result.message == f"HTTP probe failed with statuscode: {status}"


async def test_path_query_headers_and_user_agent_arrive_as_written() -> None:
    seen: list[web.Request] = []

    async def answer(request: web.Request) -> web.Response:
        seen.append(request)
        return web.Response()

    async with serving(answer) as port:
        headers = (("X-One", "1"), ("Host", "example.com"))
        assert (await ask(HttpCheck(port, "/health%2Fz?full=a%20b&x", "HTTP", headers=headers))).ok
        assert (await ask(HttpCheck(port, "bare", headers=(("user-agent", "mine"),)))).ok
    assert seen[0].raw_path == "/health%2Fz?full=a%20b&x"
    assert (seen[0].headers["X-One"], seen[0].headers["Host"]) == ("1", "example.com")
    assert seen[0].headers["User-Agent"].startswith("kube-probe/")
    assert (seen[1].raw_path, seen[1].headers["User-Agent"]) == ("/bare", "mine")


async def test_redirects_on_the_same_host_are_followed_and_others_are_fine() -> None:
    async def answer(request: web.Request) -> web.Response:
        match request.path:
            case "/local":
                return web.Response(status=302, headers={"Location": "/broken"})
            case "/loop":
                return web.Response(status=302, headers={"Location": "/loop"})
            case "/away":
                return web.Response(status=302, headers={"Location": "http://elsewhere.invalid/"})
        return web.Response(status=500)

    async with serving(answer) as port:
        assert not (await ask(HttpCheck(port, "/local"))).ok
        assert "redirects" in (await ask(HttpCheck(port, "/loop"))).message
        assert (await ask(HttpCheck(port, "/away"))).ok


async def test_https_accepts_a_self_signed_certificate(tmp_path: Path) -> None:
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "app")])
    now = datetime.now(UTC)
    certificate = (
        x509.CertificateBuilder(name, name, key.public_key(), x509.random_serial_number(), now, now + timedelta(days=1))
        .sign(key, hashes.SHA256())
        .public_bytes(serialization.Encoding.PEM)
    )
    encoding = serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    (tmp_path / "tls.pem").write_bytes(certificate + key.private_bytes(*encoding))
    tls = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    tls.load_cert_chain(tmp_path / "tls.pem")
    async with serving(answering(200), tls) as port:
        assert await ask(HttpCheck(port, scheme="HTTPS")) == Result(True)


async def test_an_answer_that_is_too_late_is_a_failure() -> None:
    async def late(_: web.Request) -> web.Response:
        await asyncio.Event().wait()
        return web.Response()

    async with serving(late) as port:
        message = (await ask(HttpCheck(port), 0.1)).message
    reason = "context deadline exceeded (Client.Timeout exceeded while awaiting headers)"
    assert message == f'Get "http://{HOST}:{port}/": {reason}'


@pytest.mark.parametrize(
    ("check", "message"),
    [
        (HttpCheck, 'Get "http://{0}/": dial tcp {0}: connect: connection refused'),
        (TcpCheck, "dial tcp {0}: connect: connection refused"),
        (GrpcCheck, 'error: failed to connect service at "{0}": connection refused'),
    ],
    ids=["http", "tcp", "grpc"],
)
async def test_a_refused_connection_is_a_failure_in_kubelets_words(check: Callable[[int], Check], message: str) -> None:
    port = free_port()
    assert await ask(check(port)) == Result(False, message.format(f"{HOST}:{port}"), refused=True)


async def test_a_listening_socket_is_enough_for_tcp() -> None:
    with socket.create_server((HOST, 0)) as server:
        port = server.getsockname()[1]
        assert await ask(TcpCheck(port)) == Result(True)
        assert await ask(TcpCheck(port, host="localhost")) == Result(True)


@pytest.mark.parametrize(
    ("result", "expected"),
    [
        (ExecResult(0, b"whatever"), Result(True)),
        (ExecResult(3, b"no database\n"), Result(False, "no database")),
        (ExecResult(1, b""), Result(False, "command ended with exit code 1")),
    ],
)
async def test_a_failed_command_is_reported_as_by_the_kubelet(result: ExecResult, expected: Result) -> None:
    async def run(command: Sequence[str], seconds: float) -> ExecResult:
        assert (list(command), seconds) == (["check", "it"], 2.0)
        return result

    async with Checker() as checker:
        assert await checker.check(ExecCheck(["check", "it"]), HOST, run, 2.0) == expected


@asynccontextmanager
async def grpc(status: bytes, grpc_status: str = "0") -> AsyncIterator[int]:
    """A gRPC server that answers each call with one health status."""

    ended = asyncio.Event()

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        connection = h2.connection.H2Connection(h2.config.H2Configuration(client_side=False))
        connection.initiate_connection()
        writer.write(connection.data_to_send())
        while data := await reader.read(65536):
            for event in connection.receive_data(data):
                if isinstance(event, h2.events.StreamEnded):
                    stream = event.stream_id
                    connection.send_headers(stream, [(":status", "200"), ("content-type", "application/grpc")])
                    connection.send_data(stream, b"\x00\x00\x00\x00" + bytes([len(status)]) + status)
                    connection.send_headers(stream, [("grpc-status", grpc_status)], end_stream=True)
            writer.write(connection.data_to_send())
        writer.close()
        await writer.wait_closed()
        ended.set()

    server = await asyncio.start_server(serve, HOST, 0)
    async with server:
        yield server.sockets[0].getsockname()[1]
        await ended.wait()


@pytest.mark.parametrize(("status", "ok"), [(b"\x08\x01", True), (b"\x08\x02", False), (b"", False)])
async def test_grpc_health_must_answer_serving(status: bytes, ok: bool) -> None:
    async with grpc(status) as port:
        assert (await ask(GrpcCheck(port, "my.Service"))).ok == ok


async def test_a_server_without_the_health_service_is_reported() -> None:
    async with grpc(b"", "12") as port:
        assert "does not implement" in (await ask(GrpcCheck(port))).message


async def test_a_server_that_is_not_http2_is_a_failure() -> None:
    async with serving(answering(200)) as port:
        assert not (await ask(GrpcCheck(port), 1.0)).ok
