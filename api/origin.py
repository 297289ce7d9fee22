"""Keeps web pages of others out: whoever reaches the plain http port administers the platform, a browser included.

A page anywhere can make a browser POST plain text to a loopback address. Browsers say where such a request comes from;
kubectl, curl and the like say nothing. A page can also have its own name resolved to a loopback address (DNS
rebinding): then it is of the same origin, but the request is for a name that is none of this machine's.
"""

from ipaddress import ip_address
from urllib.parse import urlsplit

from starlette.types import ASGIApp, Receive, Scope, Send

from api import status
from knoll.errors import ForbiddenError


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
    origin = host = b""
    for name, value in headers:
        if name == b"sec-fetch-site" and value in (b"cross-site", b"same-site"):
            return True
        if name == b"origin":
            origin = value
        elif name == b"host":
            host = value
    if not origin:
        return False
    try:
        return urlsplit(origin.decode("latin-1")).netloc.lower() != host.decode("latin-1").lower()
    except ValueError:
        return True


def is_own_name(host: str) -> bool:
    """Whether nobody can have pointed a name of his own here: an address, `localhost`, or a name without a dot.

    Args: host: as the Host header has it.
    """
    try:
        name = (urlsplit(f"//{host}").hostname or "").removesuffix(".")
    except ValueError:
        return False
    if "." not in name or name.endswith(".localhost"):
        return True
    try:
        ip_address(name)
    except ValueError:
        return False
    return True
