"""The gRPC call that probes need, on the h2 library: `grpc.health.v1.Health/Check`.

Source: grpc/grpc `doc/health-checking.md` and `doc/PROTOCOL-HTTP2.md`.
"""

import asyncio
import contextlib
import struct

import h2.config
import h2.connection
import h2.events
import h2.exceptions

from knoll.values.errors import KnollError

SERVING = 1
_STATUS = {0: "UNKNOWN", 1: "SERVING", 2: "NOT_SERVING", 3: "SERVICE_UNKNOWN"}
_UNIMPLEMENTED = "12"


class GrpcHealthError(KnollError):
    """The response was not SERVING."""


async def serving(host: str, port: int, service: str, user_agent: str) -> None:
    """Return when the server responds SERVING.

    Args:
        host: IP address or name.
        port: of a server that speaks HTTP/2 with prior knowledge.
        service: to check; empty is the server as a whole.
        user_agent: of the request.

    Raises:
        GrpcHealthError: it responds otherwise, or not in gRPC.
        OSError: no connection.
    """
    reader, writer = await asyncio.open_connection(host, port)
    try:
        connection = h2.connection.H2Connection(h2.config.H2Configuration(client_side=True, header_encoding="utf-8"))
        connection.initiate_connection()
        connection.send_headers(1, _headers(f"{host}:{port}", user_agent))
        connection.send_data(1, request(service), end_stream=True)
        body, headers = await _response(connection, reader, writer)
    except h2.exceptions.ProtocolError as error:
        raise GrpcHealthError(f"not an HTTP/2 server: {error}") from error
    finally:
        writer.close()
        with contextlib.suppress(OSError):
            await writer.wait_closed()
    evaluate(body, headers)


def request(service: str) -> bytes:
    """Return a `HealthCheckRequest` in gRPC's frame: field 1, a string."""
    name = service.encode()
    message = b"\x0a" + _varint(len(name)) + name if name else b""
    return struct.pack(">BI", 0, len(message)) + message


def evaluate(body: bytes, headers: dict[str, str]) -> None:
    """Raise GrpcHealthError unless a response is SERVING.

    Args:
        body: the framed `HealthCheckResponse`.
        headers: headers and trailers of the response.
    """
    status = headers.get("grpc-status", "")
    if headers.get(":status") != "200" or status != "0":
        message = headers.get("grpc-message") or f"HTTP {headers.get(':status')}, grpc-status {status or 'missing'}"
        problem = "health rpc probe failed"
        if status == _UNIMPLEMENTED:
            problem = "this server does not implement the grpc health protocol (grpc.health.v1.Health)"
        raise GrpcHealthError(f"error: {problem}: {message}")
    # A message of one enum in field 1; proto3 omits the value 0.
    value = body[6] if len(body) >= 7 and body[5] == 0x08 else 0
    if value != SERVING:
        raise GrpcHealthError(f'service unhealthy (responded with "{_STATUS.get(value, value)}")')


def _headers(authority: str, user_agent: str) -> list[tuple[str, str]]:
    return [
        (":method", "POST"),
        (":scheme", "http"),
        (":path", "/grpc.health.v1.Health/Check"),
        (":authority", authority),
        ("content-type", "application/grpc"),
        ("te", "trailers"),
        ("user-agent", user_agent),
    ]


async def _response(
    connection: h2.connection.H2Connection, reader: asyncio.StreamReader, writer: asyncio.StreamWriter
) -> tuple[bytes, dict[str, str]]:
    body, headers = b"", dict[str, str]()
    while True:
        if out := connection.data_to_send():
            writer.write(out)
            await writer.drain()
        data = await reader.read(65536)
        if not data:
            raise GrpcHealthError("the server closed the connection without a response")
        for event in connection.receive_data(data):
            match event:
                case h2.events.ResponseReceived() | h2.events.TrailersReceived():
                    headers |= {str(name): str(value) for name, value in event.headers or ()}
                case h2.events.DataReceived():
                    body += event.data or b""
                    connection.acknowledge_received_data(event.flow_controlled_length or 0, 1)
                case h2.events.StreamEnded():
                    return body, headers
                case h2.events.StreamReset() | h2.events.ConnectionTerminated():
                    raise GrpcHealthError("the server refused the call")
                case _:
                    pass


def _varint(number: int) -> bytes:
    out = bytearray()
    while number > 0x7F:
        out.append(number & 0x7F | 0x80)
        number >>= 7
    out.append(number)
    return bytes(out)
