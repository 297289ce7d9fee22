"""Responses that the activator makes itself. Pure."""

import functools
from email.utils import formatdate
from http import HTTPStatus

from activator.wire.http1_heads import ResponseHead
from knoll.values.names import url

REQUEST_TIMEOUT = "request timeout"
QUEUE_TIMEOUT = "activator: context deadline exceeded: no instance became free in time"


def reply(status: int, text: str, now: float, extra: bytes = b"") -> tuple[ResponseHead, bytes]:
    """Return a short response in plain text.

    Args:
        now: epoch seconds, for the Date field.
        extra: more field lines, each with its CRLF.
    """
    body = text.encode() + b"\n"
    date = _date(int(now))
    block = b"Content-Type: text/plain; charset=utf-8\r\nX-Content-Type-Options: nosniff\r\nDate: " + date + extra
    return ResponseHead(status, HTTPStatus(status).phrase.encode(), block, len(body)), body


@functools.lru_cache(maxsize=1)
def _date(second: int) -> bytes:
    """The value of the field and its CRLF; cached because under overload many responses share a second."""
    return formatdate(second, usegmt=True).encode() + b"\r\n"


def too_many_connections(now: float) -> tuple[ResponseHead, bytes]:
    """Response to a connection beyond the limit of its address, which is closed afterwards."""
    extra = b"Connection: close\r\nRetry-After: 1\r\n"
    return reply(
        429, "too many connections from this address: close some, or use them for several requests", now, extra
    )


def unknown_host(authority: bytes, now: float) -> tuple[ResponseHead, bytes]:
    """Response to a request for a host that no Route has."""
    host = authority.decode("latin-1")
    if not host:
        return reply(404, "the request has no Host header, so it cannot be routed to a service", now)
    return reply(404, f"no service has the host {host!r}: `kubectl get routes` lists the URLs", now)


def https_redirect(host: str, target: bytes, port: int, now: float) -> tuple[ResponseHead, bytes]:
    """Permanent redirect to https. Args: host: without port. port: of https."""
    path = "" if target == b"*" else target.decode("latin-1")
    location = url(host, "https", port) + path
    return reply(301, f"moved to {location}", now, b"Location: " + location.encode("latin-1") + b"\r\n")
