"""Keeps web pages of others out: whoever reaches the plain http port administers the platform, a browser included.

A page anywhere can make a browser POST plain text to a loopback address. Browsers say where such a request comes from;
kubectl, curl and the like say nothing. A page can also have its own name resolved to a loopback address (DNS
rebinding): then it is of the same origin, but the request is for a name that is none of this machine's.
"""

from ipaddress import ip_address
from urllib.parse import urlsplit

from starlette.types import ASGIApp, Receive, Scope, Send

from api.wire import status
from knoll.values.errors import ForbiddenError


class SameOriginOnly:
    """ASGI middleware that refuses requests which a browser makes for a page of another origin."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "http" and foreign(scope["headers"]):
            error = ForbiddenError("requests that a web page of another origin makes are not answered here")
            await status.respond(error)(scope, receive, send)
            return
        await self._app(scope, receive, send)


def foreign(headers: list[tuple[bytes, bytes]]) -> bool:
    """Whether the headers tell of a page of another origin.

    Source: Fetch Standard, `Origin`; W3C Fetch Metadata, `Sec-Fetch-Site`.
    """
    origins: list[bytes] = []
    host = b""
    for name, value in headers:
        if name == b"sec-fetch-site" and value in (b"cross-site", b"same-site"):
            return True
        if name == b"origin":
            origins.append(value)
        elif name == b"host":
            host = value
    return any(_netloc(origin) != host.decode("latin-1").lower() for origin in origins)


def _netloc(origin: bytes) -> str | None:
    try:
        return urlsplit(origin.decode("latin-1")).netloc.lower()
    except ValueError:
        return None


def is_own_name(host: str, machine: str = "") -> bool:
    """Whether no one can have pointed a name of theirs here: an address, `localhost`, or the machine's own name.

    Another name without a dot is none: a network may complete it, and answer for it, as it likes.

    Args:
        host: as the Host header has it.
        machine: the name of this machine.
    """
    try:
        name = (urlsplit(f"//{host}").hostname or "").removesuffix(".")
    except ValueError:
        return False
    if name in ("", "localhost", machine.lower()) or name.endswith(".localhost"):
        return True
    try:
        ip_address(name)
    except ValueError:
        return False
    return True
