"""Refuses cross-site requests: a browser on this machine has the administrator's rights on the plain HTTP port.

Any web page can make a browser POST plain text to a loopback address. Browsers state the origin of such a request;
kubectl, curl and the like send none. A page can also resolve its own name to a loopback address (DNS rebinding): it
then has the same origin, but the request is for a host name that is not this machine's.
"""

from ipaddress import ip_address
from urllib.parse import urlsplit

from starlette.types import ASGIApp, Receive, Scope, Send

from api.wire import status
from knoll.values.errors import ForbiddenError


class SameOriginOnly:
    """ASGI middleware that refuses requests that a browser sends on behalf of a page of another origin."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "http" and is_cross_origin(scope["headers"]):
            error = ForbiddenError("cross-origin requests of web pages are not allowed")
            await status.respond(error)(scope, receive, send)
            return
        await self._app(scope, receive, send)


def is_cross_origin(headers: list[tuple[bytes, bytes]]) -> bool:
    """Whether the headers name a page of another origin.

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
    """Whether an attacker cannot own the name: it is an address, `localhost`, or this machine's name.

    Other names without a dot do not count: the network may complete them and resolve them to any address.

    Args:
        host: the value of the Host header.
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
