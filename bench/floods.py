"""Floods of HTTP/2 frames on one connection, and their effect on other clients: `python -m bench.floods`.

For each kind of frame: 1 MB of it (or of requests made of it) goes to the gateway on one connection, for a host that no
Route has and for one that a Route has. Meanwhile another client sends requests at a fixed rate on other connections.
Measured are the 99th percentile of its latency, beside that of a time without a flood, and the activator's CPU time.
"""

import argparse
import asyncio
import os
import tempfile
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import hpack
import uvloop
from hpack import HeaderTuple, NeverIndexedHeaderTuple

from activator.wire.http2_frames import PREFACE, Frame
from bench.lib import load
from bench.lib.load import result
from bench.lib.stage import HOST, Activator, Stage
from knoll.messages.endpoints import Endpoint

MEGABYTE = 1_000_000
SECONDS = 2.0
"""Time in which a flood is received and processed."""
PER_SECOND = 200
"""Requests of the other client."""
DATA, HEADERS, PRIORITY, RST, SETTINGS, PUSH, PING, GOAWAY, WINDOW, CONTINUATION = range(10)


def frame(kind: int, payload: bytes = b"", stream: int = 0, flags: int = 0) -> bytes:
    return Frame(kind, flags, stream, payload).wire()


class Requests:
    """Builds the frames of one connection."""

    def __init__(self, host: str, size: int = MEGABYTE) -> None:
        """Args: size: bytes of a flood."""
        self._encoder = hpack.Encoder()
        self.size = size
        self.host = host
        self.next = 1

    def open(self, flags: int = 0x5, more: Sequence[HeaderTuple | tuple[str, str]] = (), method: str = "GET") -> bytes:
        """Return the head of a request."""
        fields = [(":method", method), (":path", "/"), (":scheme", "http"), (":authority", self.host)]
        number, self.next = self.next, self.next + 2
        return frame(HEADERS, self._encoder.encode([*fields, *more], huffman=True), number, flags)

    def post(self) -> bytes:
        return self.open(0x4, method="POST")

    def repeated(self, unit: bytes, first: bytes = b"") -> bytes:
        return first + unit * (self.size // len(unit))

    def made(self, unit: Callable[[], bytes], first: bytes = b"") -> bytes:
        parts, size = [first], 0
        while size < self.size:
            parts.append(unit())
            size += len(parts[-1])
        return b"".join(parts)


def trailers(requests: Requests) -> bytes:
    def unit() -> bytes:
        return requests.post() + frame(HEADERS, b"\x00\x01x\x01y", requests.next - 2, 0x5)

    return requests.made(unit)


Flood = Callable[[Requests], bytes]


def interleaved(requests: Requests) -> bytes:
    opened = b"".join(requests.post() for _ in range(200))
    turns = b"".join(frame(DATA, b"x", stream) for stream in range(1, 400, 2))
    return requests.repeated(turns, opened)


def on_open_streams(requests: Requests, *frames: bytes) -> bytes:
    """Frames that concern the windows of 200 streams."""
    return requests.repeated(b"".join(frames), b"".join(requests.post() for _ in range(200)))


def big_fields(requests: Requests) -> bytes:
    """A field of 3.9 KB is added to the table, and then referenced fifteen times in each request."""
    head = b"\x82\x84\x86\x01" + bytes([len(requests.host)]) + requests.host.encode()
    field = b"\x40\x01v\x7f" + bytes([(3900 - 127) & 0x7F | 0x80, (3900 - 127) >> 7]) + b"v" * 3900

    def unit(more: bytes = b"\xbe" * 15) -> bytes:
        number, requests.next = requests.next, requests.next + 2
        return frame(HEADERS, head + more, number, 0x5)

    return requests.made(unit, unit(field))


def continuations(requests: Requests) -> bytes:
    number, requests.next = requests.next, requests.next + 2
    return frame(HEADERS, b"\x82", number, 0x1) + requests.repeated(frame(CONTINUATION, b"", number))


def small_fields(requests: Requests) -> bytes:
    def unit() -> bytes:
        number, requests.next = requests.next, requests.next + 2
        return frame(HEADERS, b"\x40\x00\x00" * 2000, number, 0x5)

    return requests.made(unit)


FLOODS: dict[str, Flood] = {
    "data_empty": lambda r: r.repeated(frame(DATA, b"", 1), r.post()),
    "data_one_byte": lambda r: r.repeated(frame(DATA, b"x", 1), r.post()),
    "data_one_byte_200_streams": interleaved,
    "data_padded": lambda r: r.repeated(frame(DATA, b"\x01x\0", 1, 0x8), r.post()),
    "data_closed_stream": lambda r: r.repeated(frame(DATA, b"x", 1), r.open()),
    "headers": lambda r: r.made(r.open),
    "headers_big_indexed_fields": big_fields,
    "headers_small_fields": small_fields,
    "headers_malformed": lambda r: r.made(lambda: r.open(more=[("connection", "close")])),
    "headers_huffman": lambda r: r.made(lambda: r.open(more=[NeverIndexedHeaderTuple("x", "~" * 4000)])),
    "trailers": trailers,
    "trailers_closed_stream": lambda r: r.made(lambda: frame(HEADERS, b"\x82", 1, 0x5), r.open()),
    "priority": lambda r: r.repeated(frame(PRIORITY, b"\0\0\0\0\x10", 1)),
    "rst_of_open_streams": lambda r: r.made(lambda: r.open() + frame(RST, b"\0\0\0\x08", r.next - 2)),
    "rst_of_closed_stream": lambda r: r.repeated(frame(RST, b"\0\0\0\x08", 1), r.open()),
    "settings": lambda r: r.repeated(frame(SETTINGS, b"\0\x04\0\x01\0\0")),
    "settings_large": lambda r: r.repeated(frame(SETTINGS, b"\0\x04\0\x01\0\0" * 2700)),
    "settings_empty": lambda r: r.repeated(frame(SETTINGS)),
    "settings_ack": lambda r: r.repeated(frame(SETTINGS, b"", 0, 0x1)),
    "ping": lambda r: r.repeated(frame(PING, b"12345678")),
    "ping_ack": lambda r: r.repeated(frame(PING, b"12345678", 0, 0x1)),
    "goaway": lambda r: r.repeated(frame(GOAWAY, bytes(8))),
    "settings_while_data_waits": lambda r: on_open_streams(
        r, frame(SETTINGS, b"\0\x04\0\0\0\0"), frame(SETTINGS, b"\0\x04\x7f\xff\xff\xff")
    ),
    "window_update_while_data_waits": lambda r: on_open_streams(r, frame(WINDOW, b"\0\0\0\x01")),
    "window_update": lambda r: r.repeated(frame(WINDOW, b"\0\0\0\x01")),
    "window_update_stream": lambda r: r.repeated(frame(WINDOW, b"\0\0\0\x01", 1), r.post()),
    "continuation": continuations,
    "unknown": lambda r: r.repeated(frame(0xBE)),
}


SERVED = {"headers"}
"""Floods of ordinary requests (77 000 in a megabyte) to an existing host: this is load, and its CPU time is
reported but is not part of the worst case."""


@dataclass(frozen=True, slots=True)
class Felt:
    """Effect of a flood."""

    p99_ms: float
    cpu_seconds: float


def cpu(activator: Activator) -> float:
    """Return the CPU time of its process so far, in seconds."""
    fields = Path(f"/proc/{activator.process.pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


async def pour(port: int, data: bytes) -> None:
    """Send a flood, and ignore the responses."""
    reader, writer = await asyncio.open_connection(HOST, port)

    async def drink() -> None:
        while await reader.read(1 << 20):
            pass

    drinking = asyncio.create_task(drink())
    try:
        for at in range(0, len(data), 65_536):
            writer.write(data[at : at + 65_536])
            await writer.drain()
        await asyncio.sleep(SECONDS / 2)
    except ConnectionError:
        pass
    finally:
        drinking.cancel()
        await asyncio.gather(drinking, return_exceptions=True)
        writer.close()


async def suffer(port: int, flood: bytes | None, connections: int) -> list[float]:
    """Return the latencies of the other client in seconds."""

    async def floods() -> None:
        await asyncio.sleep(0.3)
        if flood is not None:
            await asyncio.gather(*(pour(port, flood) for _ in range(connections)))

    latencies, _ = await asyncio.gather(load.paced(port, PER_SECOND, SECONDS), floods())
    return latencies


def measure(activator: Activator, flood: bytes | None, connections: int) -> Felt:
    before = cpu(activator)
    latencies = uvloop.run(suffer(activator.port, flood, connections))
    return Felt(load.percentile(latencies, 0.99) * 1000, cpu(activator) - before)


def main() -> None:
    parser = argparse.ArgumentParser(prog="bench.floods", description=__doc__)
    parser.add_argument("--only", default="", help="kinds, separated by commas (all)")
    parser.add_argument("--connections", type=int, default=1, help="connections that flood (%(default)s)")
    options = parser.parse_args()
    chosen = [name for name in options.only.split(",") if name] or list(FLOODS)
    worst = {"added_p99_ms": 0.0, "cpu_seconds": 0.0}
    with tempfile.TemporaryDirectory() as directory:
        stage = Stage(Path(directory))
        try:
            stage.start()
            stage.route(HOST, (Endpoint("app", HOST, stage.app),))
            with stage.activator() as activator:
                measure(activator, None, 0)
                for name in chosen:
                    quiet = measure(activator, None, 0)
                    for kind, host in (("unknown_host", "nowhere.example"), ("host", HOST)):
                        flood = PREFACE + frame(SETTINGS) + FLOODS[name](Requests(host))
                        felt = measure(activator, flood, options.connections)
                        added = max(0.0, felt.p99_ms - quiet.p99_ms)
                        spent = max(0.0, felt.cpu_seconds - quiet.cpu_seconds)
                        worst["added_p99_ms"] = max(worst["added_p99_ms"], added)
                        if kind != "host" or name not in SERVED:
                            worst["cpu_seconds"] = max(worst["cpu_seconds"], spent)
                        result(f"floods.{name}.{kind}.added_p99_ms", added, "ms")
                        result(f"floods.{name}.{kind}.cpu_seconds", spent, "s")
        finally:
            stage.close()
    result("floods.worst.added_p99_ms", worst["added_p99_ms"], "ms")
    result("floods.worst.cpu_seconds", worst["cpu_seconds"], "s")


if __name__ == "__main__":
    main()
