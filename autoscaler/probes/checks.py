"""Checks of a container over HTTP, TCP, a command or gRPC. Every failure is a result, not an exception.

Messages are kubelet's, letter for letter where it has one.
Source: Kubernetes, pkg/probe/{http,tcp,exec,grpc}; Go, net.OpError.
"""

import asyncio
import contextlib
import errno
import os
import socket
import ssl
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from fractions import Fraction

import aiohttp
import structlog
from yarl import URL

from autoscaler.probes.spec import Check, ExecCheck, GrpcCheck, HttpCheck, TcpCheck
from autoscaler.runtime.model import ExecResult
from knoll.values.duration import format_duration
from knoll.values.errors import KnollError

log = structlog.get_logger()

USER_AGENT = "kube-probe/1.32"
"""Lets applications recognize probes and exclude them from their metrics."""
REDIRECTS = 10
OUTPUT_BYTES = 1024
"""How much of the end of a command's output a message quotes."""

Exec = Callable[[Sequence[str], float], Awaitable[ExecResult]]
"""Runs a command in the probed container, with a timeout in seconds."""


@dataclass(frozen=True, slots=True)
class Result:
    """The result of one probe."""

    ok: bool
    message: str = ""
    """Kubelet's message of the failure; empty when ok."""
    refused: bool = False
    """Nothing listens at the address and port."""


class Checker:
    """Carries out checks. Holds the HTTP client; use as `async with`."""

    def __init__(self) -> None:
        self.logs = False
        """Whether each probe is logged."""
        self._http: aiohttp.ClientSession | None = None
        # kubelet does not verify certificates of containers either: no authority issues them for their addresses.
        self._tls = ssl.create_default_context()
        self._tls.check_hostname = False
        self._tls.verify_mode = ssl.CERT_NONE

    async def __aenter__(self) -> "Checker":
        connector = aiohttp.TCPConnector(ssl=self._tls, force_close=True, limit=0, use_dns_cache=False)
        self._http = aiohttp.ClientSession(connector=connector, cookie_jar=aiohttp.DummyCookieJar())
        return self

    async def __aexit__(self, *_: object) -> None:
        if self._http:
            await self._http.close()

    async def check(self, check: Check, address: str, run: Exec, timeout_seconds: float) -> Result:
        """Carry out a check once.

        Args:
            check: what to check.
            address: the instance's IP address.
            run: runs commands.
            timeout_seconds: > 0; a later response is a failure.
        """
        result = await self._result(check, address, run, timeout_seconds)
        if self.logs:
            kind = type(check).__name__.removesuffix("Check").lower()
            log.info("probe", kind=kind, address=address, ok=result.ok, message=result.message)
        return result

    async def _result(self, check: Check, address: str, run: Exec, timeout_seconds: float) -> Result:
        try:
            async with asyncio.timeout(timeout_seconds):
                match check:
                    case TcpCheck():
                        await connect(check.host or address, check.port)
                        return Result(True)
                    case HttpCheck():
                        return await self._get(check, address)
                    case GrpcCheck():
                        # Imported here: a platform without gRPC probes does not load HTTP/2 into this process.
                        from autoscaler.probes.grpc_health import serving

                        await serving(address, check.port, check.service, USER_AGENT)
                        return Result(True)
                    case ExecCheck():
                        return _exec_result(await run(check.command, timeout_seconds))
        except TimeoutError:
            return Result(False, _timed_out(check, address, timeout_seconds))
        except ConnectionRefusedError as error:
            return Result(False, _failed(check, address, error), refused=True)
        except (OSError, aiohttp.ClientError, KnollError, ValueError) as error:
            return Result(False, _failed(check, address, error))

    async def _get(self, check: HttpCheck, address: str) -> Result:
        assert self._http is not None, "used outside of its `async with`"
        host = check.host or address
        # Where nothing listens yet, a bare connection fails at a tenth of the HTTP client's cost.
        await connect(host, check.port)
        url = URL(_url(check, address), encoded=True)
        headers = {"User-Agent": USER_AGENT, "Accept": "*/*"}
        for name, value in check.headers:
            headers = {key: other for key, other in headers.items() if key.lower() != name.lower()} | {name: value}
        for _ in range(REDIRECTS):
            async with self._http.get(url, headers=headers, allow_redirects=False) as response:
                location = response.headers.get("Location", "")
                target = URL(location, encoded=True) if 300 <= response.status < 400 and location else None
                if target is None or (target.host and target.host != url.host):
                    return await _http_result(response)
                url = url.join(target)
        return Result(False, f'Get "{url}": stopped after {REDIRECTS} redirects')


async def connect(host: str, port: int) -> None:
    """Open a TCP connection and close it; raises OSError. Cheap: one socket without a stream."""
    if not _is_address(host):
        _, writer = await asyncio.open_connection(host, port)
        writer.transport.abort()
        return
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    with contextlib.closing(socket.socket(family, socket.SOCK_STREAM)) as connection:
        connection.setblocking(False)
        await asyncio.get_running_loop().sock_connect(connection, (host, port))


async def _http_result(response: aiohttp.ClientResponse) -> Result:
    if 200 <= response.status < 400:
        return Result(True)
    return Result(False, f"HTTP probe failed with statuscode: {response.status}")


def _exec_result(result: ExecResult) -> Result:
    if result.exit_code == 0:
        return Result(True)
    output = result.output[-OUTPUT_BYTES:].decode(errors="replace").strip()
    return Result(False, output or f"command ended with exit code {result.exit_code}")


def _timed_out(check: Check, address: str, seconds: float) -> str:
    match check:
        case TcpCheck():
            return f"dial tcp {_endpoint(check.host or address, check.port)}: i/o timeout"
        case HttpCheck():
            reason = "context deadline exceeded (Client.Timeout exceeded while awaiting headers)"
            return f'Get "{_url(check, address)}": {reason}'
        case GrpcCheck():
            return f"timeout: health rpc did not complete within {format_duration(Fraction(seconds))}"
        case ExecCheck():
            timeout = format_duration(Fraction(seconds))
            return f'command timed out: "{" ".join(check.command)}" timed out after {timeout}'


def _failed(check: Check, address: str, error: Exception) -> str:
    reason = str(error) or type(error).__name__
    if isinstance(error, OSError) and error.errno and not isinstance(error, aiohttp.ClientError):
        reason = f"connect: {os.strerror(error.errno).lower()}" if error.errno in _CONNECTING else reason
    match check:
        case TcpCheck():
            return f"dial tcp {_endpoint(check.host or address, check.port)}: {reason}"
        case HttpCheck():
            dial = (
                f"dial tcp {_endpoint(check.host or address, check.port)}: " if reason.startswith("connect: ") else ""
            )
            return f'Get "{_url(check, address)}": {dial}{reason}'
        case GrpcCheck() if reason.startswith("connect: "):
            endpoint = _endpoint(address, check.port)
            return f'error: failed to connect service at "{endpoint}": {reason.removeprefix("connect: ")}'
        case _:
            return reason


_CONNECTING = (errno.ECONNREFUSED, errno.EHOSTUNREACH, errno.ENETUNREACH, errno.ECONNRESET, errno.ETIMEDOUT)


def _url(check: HttpCheck, address: str) -> str:
    path = check.path if check.path.startswith("/") else f"/{check.path}"
    return f"{check.scheme.lower()}://{_endpoint(check.host or address, check.port)}{path}"


def _endpoint(host: str, port: int) -> str:
    return f"{_bracketed(host)}:{port}"


def _is_address(host: str) -> bool:
    for family in (socket.AF_INET, socket.AF_INET6):
        with contextlib.suppress(OSError):
            socket.inet_pton(family, host)
            return True
    return False


def _bracketed(host: str) -> str:
    return f"[{host}]" if ":" in host else host
