"""The request log: JSON lines, or lines of a template. Written in batches; no cost while it is disabled."""

import asyncio
import random
import sys
import time
from collections.abc import Callable

import msgspec

from activator.interfaces import ProxiedRequest
from activator.routing.proxy_state import ProxyState
from activator.wire.http1_parser import split_fields
from knoll.config import request_log

FLUSH_SECONDS = 0.25
TRACE_ID_LENGTH = 32
"""Hexadecimal digits; W3C Trace Context, 3.2.2.3."""
PROBE = b"kube-probe/"
MAX_LINES = 20_000
"""Lines kept until the next flush; further ones are only counted."""


class AccessLog:
    """Collects lines; `run` writes them."""

    def __init__(self, proxy: ProxyState, keep: Callable[[str, bytes], None] | None = None) -> None:
        """Args: keep: called with `namespace/name` of each line's instance, and the line."""
        self._proxy, self._keep = proxy, keep
        self._lines: list[bytes] = []
        self._dropped = 0
        self.sample_rate = 1.0
        """Share of requests that are logged, 0 to 1, chosen at random."""
        self.template: request_log.Template = ()
        """Template of a line; empty for JSON."""
        self.requests, self.probes = True, False
        """Whether requests are logged, and whether Kubernetes' probes are."""

    def add(self, exchange: ProxiedRequest, status: int, now: float) -> None:
        """A request ended. Args: status: 499 if the client disconnected. now: on the loop's clock."""
        if not (self.probes if _is_probe(exchange) else self.requests):
            return
        if self.sample_rate < 1 and random.random() >= self.sample_rate:  # noqa: S311 - a sample, not a secret
            return
        if len(self._lines) >= MAX_LINES:
            self._dropped += 1
            return
        line = _templated(self.template, exchange, status, now) if self.template else _as_json(exchange, status, now)
        self._lines.append(line)
        if self._keep is not None and exchange.endpoint is not None:
            self._keep(f"{exchange.revision.name.partition('/')[0]}/{exchange.endpoint.id}", line)

    async def run(self) -> None:
        """Run until cancelled."""
        while True:
            await asyncio.sleep(FLUSH_SECONDS)
            self.flush()

    def flush(self) -> None:
        """Write the collected lines."""
        lines, self._lines = self._lines, []
        if self._dropped:
            lines.append(msgspec.json.encode({"event": "requests not logged", "count": self._dropped}))
            self._dropped = 0
        if lines:
            sys.stdout.buffer.write(b"\n".join(lines) + b"\n")
            sys.stdout.buffer.flush()


def _is_probe(exchange: ProxiedRequest) -> bool:
    """Whether the User-Agent is that of a Kubernetes probe, as in Knative's queue-proxy."""
    return PROBE in exchange.head.block and _first(_header(exchange, "User-Agent")).startswith(PROBE.decode())


def _as_json(exchange: ProxiedRequest, status: int, now: float) -> bytes:
    head, endpoint = exchange.head, exchange.endpoint
    return msgspec.json.encode(
        {
            "event": "request",
            "time": round(time.time(), 3),
            "method": head.method.decode(),
            "host": head.authority.decode("latin-1"),
            "path": head.target.decode("latin-1"),
            "status": status,
            "size": exchange.size,
            "seconds": round(now - exchange.arrived_at, 6),
            "waited": round(max(0.0, exchange.started - exchange.arrived_at), 6),
            "revision": exchange.revision.name,
            "instance": endpoint.id if endpoint is not None else "",
            "client": exchange.peer.address.decode(),
        }
    )


def _templated(template: request_log.Template, exchange: ProxiedRequest, status: int, now: float) -> bytes:
    line = request_log.line(
        template, lambda field: _FIELDS[field](exchange, status, now), lambda name: _header(exchange, name)
    )
    return line.encode()


def _header(exchange: ProxiedRequest, name: str) -> list[str]:
    key = name.lower().encode()
    return [value.decode("latin-1") for field, value in split_fields(exchange.head.block) if field.lower() == key]


def _trace_id(exchange: ProxiedRequest) -> str:
    """Return the trace ID from W3C's header, or else from Zipkin's; empty without either."""
    parts = _first(_header(exchange, "traceparent")).split("-")
    if len(parts) >= 4 and len(parts[1]) == TRACE_ID_LENGTH:
        return parts[1]
    return _first(_header(exchange, "X-B3-TraceId"))


def _first(values: list[str]) -> str:
    return values[0] if values else ""


_FIELDS: dict[str, Callable[[ProxiedRequest, int, float], str]] = {
    "Request.Method": lambda exchange, *_: exchange.head.method.decode(),
    "Request.RequestURI": lambda exchange, *_: exchange.head.target.decode("latin-1"),
    "Request.Host": lambda exchange, *_: exchange.head.authority.decode("latin-1"),
    "Request.Proto": lambda exchange, *_: exchange.protocol,
    "Request.ContentLength": lambda exchange, *_: str(exchange.head.length),
    "Request.UserAgent": lambda exchange, *_: _first(_header(exchange, "User-Agent")),
    "Request.RemoteAddr": lambda exchange, *_: exchange.peer.address.decode(),
    "Request.Referer": lambda exchange, *_: _first(_header(exchange, "Referer")),
    "Response.Code": lambda _, status, __: str(status),
    "Response.Size": lambda exchange, *_: str(exchange.size),
    "Response.Latency": lambda exchange, _, now: f"{now - exchange.arrived_at:.6f}",
    "Revision.Name": lambda exchange, *_: exchange.revision.name.partition("/")[2],
    "Revision.Namespace": lambda exchange, *_: exchange.revision.name.partition("/")[0],
    "Revision.PodName": lambda exchange, *_: exchange.endpoint.id if exchange.endpoint else "",
    "Revision.PodIP": lambda exchange, *_: exchange.endpoint.host if exchange.endpoint else "",
    "TraceID": lambda exchange, *_: _trace_id(exchange),
}
"""The values of `request_log.FIELDS`."""
