"""Asking a container whether it is fine: over http, tcp, a command, gRPC. Every failure is an answer, not an error."""

import asyncio
import contextlib
import socket
import ssl
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass

import aiohttp
from yarl import URL

from autoscaler.probes.grpc_health import GrpcHealthError, serving
from autoscaler.probes.spec import Check, ExecCheck, GrpcCheck, HttpCheck, TcpCheck
from autoscaler.runtime.protocol import ExecResult
from knoll.errors import KnollError

USER_AGENT = "kube-probe/1.32"
"""By which applications know a probe, and leave it out of their own counts."""
REDIRECTS = 10
SAID_BYTES = 200

Exec = Callable[[Sequence[str], float], Awaitable[ExecResult]]
"""Runs a command in the probed container, for at most so many seconds."""


@dataclass(frozen=True, slots=True)
class Result:
    """One probe's answer."""

    ok: bool
    message: str = ""
    """Why not, in kubelet's style; empty when ok."""


class Checker:
    """Carries out checks. Holds the HTTP client; use as `async with`."""

    def __init__(self) -> None:
        self._http: aiohttp.ClientSession | None = None
        # kubelet does not verify the certificate of a container either: nobody can have issued one for its address.
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
        """Ask once.

        Args:
            check: what to ask.
            address: the instance's IP address.
            run: for commands.
            timeout_seconds: > 0; a later answer is a failure.
        """
        try:
            async with asyncio.timeout(timeout_seconds):
                match check:
                    case TcpCheck():
                        await connect(check.host or address, check.port)
                        return Result(True)
                    case HttpCheck():
                        return await self._get(check, address)
                    case GrpcCheck():
                        await serving(address, check.port, check.service, USER_AGENT)
                        return Result(True)
                    case ExecCheck():
                        return _executed(await run(check.command, timeout_seconds))
        except TimeoutError:
            return Result(False, f"no answer within {timeout_seconds:g} s")
        except (OSError, aiohttp.ClientError, GrpcHealthError, KnollError, ValueError) as error:
            return Result(False, str(error) or type(error).__name__)

    async def _get(self, check: HttpCheck, address: str) -> Result:
        assert self._http is not None, "used outside of its `async with`"
        host = check.host or address
        # Where nothing listens yet, a bare connection finds out at a tenth of the client's price.
        await connect(host, check.port)
        path = check.path if check.path.startswith("/") else f"/{check.path}"
        url = URL(f"{check.scheme.lower()}://{_bracketed(host)}:{check.port}{path}", encoded=True)
        headers = {"User-Agent": USER_AGENT, "Accept": "*/*"}
        for name, value in check.headers:
            headers = {key: kept for key, kept in headers.items() if key.lower() != name.lower()} | {name: value}
        for _ in range(REDIRECTS):
            async with self._http.get(url, headers=headers, allow_redirects=False) as answer:
                target = answer.headers.get("Location", "")
                onward = URL(target, encoded=True) if 300 <= answer.status < 400 and target else None
                if onward is None or (onward.host and onward.host != url.host):
                    return await _answered(answer)
                url = url.join(onward)
        return Result(False, f"stopped after {REDIRECTS} redirects")


async def connect(host: str, port: int) -> None:
    """Have a TCP connection accepted, and close it; raises OSError. Cheap: one socket, no stream around it."""
    if not _is_address(host):
        _, writer = await asyncio.open_connection(host, port)
        writer.transport.abort()
        return
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    with contextlib.closing(socket.socket(family, socket.SOCK_STREAM)) as one:
        one.setblocking(False)
        await asyncio.get_running_loop().sock_connect(one, (host, port))


async def _answered(answer: aiohttp.ClientResponse) -> Result:
    if 200 <= answer.status < 400:
        return Result(True)
    said = (await answer.content.read(SAID_BYTES)).decode(errors="replace").strip()
    return Result(False, f"HTTP probe failed with statuscode: {answer.status}" + (f": {said}" if said else ""))


def _executed(result: ExecResult) -> Result:
    if result.exit_code == 0:
        return Result(True)
    said = result.output[-SAID_BYTES:].decode(errors="replace").strip()
    return Result(False, f"command ended with exit code {result.exit_code}" + (f": {said}" if said else ""))


def _is_address(host: str) -> bool:
    for family in (socket.AF_INET, socket.AF_INET6):
        with contextlib.suppress(OSError):
            socket.inet_pton(family, host)
            return True
    return False


def _bracketed(host: str) -> str:
    return f"[{host}]" if ":" in host else host
