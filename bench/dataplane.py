"""The data path beside nginx on the same core: `python -m bench.dataplane`. dataplane.md describes how."""

import argparse
import asyncio
import contextlib
import subprocess
import tempfile
import time
from pathlib import Path
from statistics import median

import uvloop

from bench.lib import load
from bench.lib.load import result
from bench.lib.quota import bounded
from bench.lib.stage import HOST, LOAD_CORE, Activator, Stage, free_port, wait_for_port
from knoll.messages.endpoints import Endpoint
from knoll.messages.routing import RequestPolicy

GIB = 1024**3
CLIENT_ADDRESSES = 8
"""Addresses from which many requests come: one address may have a quarter of the activator's open files at most."""
UPLOAD_HOST = "upload.bench"
WORKER_PART = 0.15
"""Share of a core for each worker: two workers leave most of two cores to the load and the app."""


def small_requests(stage: Stage, activator: Activator, rounds: int) -> None:
    """Rates and latencies of a small GET."""

    def compared(connections: int, script: Path | None = None) -> load.Comparison:
        def measure(port: int, seconds: float) -> load.Rate:
            return load.wrk(port, connections, seconds, script)

        return load.compare(measure, activator.port, stage.nginx, rounds)

    same = compared(64)
    print(f"64 connections: {same.ours.per_second:.0f}/s beside nginx {same.other.per_second:.0f}/s")
    result("dataplane.get64_rps", same.ours.per_second, "requests/s")
    result("dataplane.get64_vs_nginx", same.rate, "ratio")
    result("dataplane.p99_vs_nginx", same.p99, "ratio")
    result("dataplane.get64_errors", same.ours.errors, "requests")
    script = stage.directory / "varied.lua"
    script.write_text(load.VARIED)
    result("dataplane.varied64_vs_nginx", compared(64, script).rate, "ratio")
    result("dataplane.get1000_vs_nginx", compared(1000).rate, "ratio")


def added_latency(stage: Stage, activator: Activator, rounds: int) -> None:
    """Latency that the activator adds at 1000 requests per second."""
    direct: list[float] = []
    through: list[float] = []
    for _ in range(rounds):
        for port, seen in ((stage.app, direct), (activator.port, through)):
            seen.append(load.percentile(uvloop.run(load.paced(port, 1000, 3)), 0.95))
    result("dataplane.added_p95_ms", (median(through) - median(direct)) * 1000, "ms")


def streams(stage: Stage, activator: Activator, rounds: int) -> None:
    """Download and upload of a gibibyte through one connection."""
    file = stage.directory / "gigabyte"
    with file.open("wb") as out:
        out.truncate(GIB)
    stage.route(UPLOAD_HOST, (Endpoint("upload", HOST, stage.upload),))
    uvloop.run(_until_served(activator.port, UPLOAD_HOST, 200))
    before, peak = activator.rss_mib(), 0.0
    rates: dict[tuple[str, int], list[float]] = {}
    for _ in range(rounds):
        for way in ("down", "up"):
            for port in (activator.port, stage.nginx):
                rates.setdefault((way, port), []).append(_curl(way, port, file))
                peak = max(peak, activator.rss_mib())
    ratios = {way: median(rates[way, activator.port]) / median(rates[way, stage.nginx]) for way in ("down", "up")}
    print(f"download {median(rates['down', activator.port]) / 1e9:.2f} GB/s, "
          f"upload {median(rates['up', activator.port]) / 1e9:.2f} GB/s")  # fmt: skip
    result("dataplane.stream_vs_nginx", min(ratios.values()), "ratio")
    result("dataplane.download_vs_nginx", ratios["down"], "ratio")
    result("dataplane.upload_vs_nginx", ratios["up"], "ratio")
    result("dataplane.stream_rss_growth_mib", max(0.0, peak - before), "MiB")
    file.unlink()


def _curl(way: str, port: int, file: Path) -> float:
    """Bytes per second."""
    url = f"http://{HOST}:{port}/"
    upload = ["-T", str(file), "-H", "Expect:", "-H", f"Host: {UPLOAD_HOST}", url + "upload"]
    command = ["taskset", "-c", LOAD_CORE, "curl", "-sS", "--fail", "-o", "/dev/null"]
    command += upload if way == "up" else [url + "gigabyte"]
    began = time.perf_counter()
    subprocess.run(command, check=True)
    return GIB / (time.perf_counter() - began)


async def _idle_websockets(stage: Stage, activator: Activator, count: int) -> None:
    async def app(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.write(b"HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\n")
        with contextlib.suppress(asyncio.CancelledError):
            await reader.read()
        writer.close()

    port = free_port()
    server = await asyncio.start_server(app, HOST, port, backlog=4096)
    await stage.put("ws.bench", (Endpoint("ws", HOST, port),))
    await _until_served(activator.port, "ws.bench", 101)
    before = activator.rss_mib()
    clients = []
    for _ in range(count):
        reader, writer = await asyncio.open_connection(HOST, activator.port)
        writer.write(b"GET / HTTP/1.1\r\nHost: ws.bench\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\n")
        await reader.readuntil(b"\r\n\r\n")
        clients.append(writer)
    result("dataplane.websocket_kib", (activator.rss_mib() - before) * 1024 / count, "KiB")
    for writer in clients:
        writer.close()
    server.close()


async def _until_served(port: int, host: str, status: int) -> None:
    """Wait until the activator serves a route."""
    while True:
        reader, writer = await asyncio.open_connection(HOST, port)
        writer.write(f"GET / HTTP/1.1\r\nHost: {host}\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\n".encode())
        line = await reader.readline()
        writer.close()
        if line.split(b" ")[1] == str(status).encode():
            return
        await asyncio.sleep(0.02)


async def _queued(stage: Stage, activator: Activator, count: int) -> None:
    await stage.put("warm.bench", (Endpoint("warm", HOST, stage.app),))
    await stage.put("cold.bench", ())
    await stage.put("last.bench", (Endpoint("last", HOST, stage.app),))
    await _until_served(activator.port, "last.bench", 200)
    before = activator.rss_mib()
    clients = []
    for number in range(count):
        address = f"127.0.0.{1 + number % CLIENT_ADDRESSES}"
        reader, writer = await asyncio.open_connection(HOST, activator.port, local_addr=(address, 0))
        writer.write(b"GET / HTTP/1.1\r\nHost: cold.bench\r\n\r\n")
        clients.append((reader, writer))
    await asyncio.sleep(1)
    result("dataplane.queued10k_mib", activator.rss_mib() - before, "MiB")
    await stage.put("cold.bench", (Endpoint("cold", HOST, stage.app),))
    lines = await asyncio.gather(*(reader.readline() for reader, _ in clients))
    result("dataplane.queued10k_answered", sum(line.startswith(b"HTTP/1.1 200") for line in lines), "requests")
    for _, writer in clients:
        writer.close()


def http2(stage: Stage, activator: Activator, rounds: int) -> None:
    """Rate of small requests over HTTP/2, to an app with HTTP/1.1."""
    compared = _h2load(stage, activator, rounds)
    print(f"HTTP/2: {compared.ours.per_second:.0f}/s beside nginx {compared.other.per_second:.0f}/s")
    result("dataplane.h2_rps", compared.ours.per_second, "requests/s")
    result("dataplane.h2_vs_nginx", compared.rate, "ratio")
    result("dataplane.h2_errors", compared.ours.errors, "requests")


def _h2load(stage: Stage, activator: Activator, rounds: int, *more: str, path: str = "/") -> load.Comparison:
    def measure(port: int, seconds: float) -> load.Rate:
        return load.h2load(port, seconds, *more, path=path)

    return load.compare(measure, activator.port, stage.nginx_h2, rounds)


def grpc(stage: Stage, activator: Activator, rounds: int) -> None:
    """Unary gRPC calls to an instance with h2c: by Go, which checks responses, and by h2load, which takes less time."""
    program = stage.directory / "grpc"
    source = Path(__file__).parent / "lib" / "grpc"
    subprocess.run(["go", "build", "-o", str(program), "."], check=True, cwd=source)
    stage.run(str(program), "serve", f"{HOST}:{stage.grpc}", core=LOAD_CORE)
    wait_for_port(stage.grpc)
    stage.route("grpc.bench", (Endpoint("grpc", HOST, stage.grpc),), RequestPolicy(h2c=True))
    stage.route("last.bench", (Endpoint("last", HOST, stage.app),))
    uvloop.run(_until_served(activator.port, "last.bench", 200))
    rates, wrong = [], 0
    for _ in range(rounds):
        command = ["taskset", "-c", LOAD_CORE, str(program), "load", f"{HOST}:{activator.port}", "grpc.bench"]
        output = subprocess.run([*command, "4", "64", "3"], check=True, capture_output=True, text=True).stdout.split()
        rates.append(float(output[0]))
        wrong += int(output[1])
    result("dataplane.grpc_rps", median(rates), "requests/s")
    result("dataplane.grpc_errors", wrong, "requests")
    body = stage.directory / "message"
    body.write_bytes(bytes((0, 0, 0, 0, 11)) + b"hello world")
    call = [
        "-d",
        str(body),
        "-H",
        ":authority: grpc.bench",
        "-H",
        "content-type: application/grpc",
        "-H",
        "te: trailers",
    ]
    compared = _h2load(stage, activator, rounds, *call, path="/test.Echo/Echo")
    print(f"gRPC: {compared.ours.per_second:.0f}/s beside nginx {compared.other.per_second:.0f}/s")
    result("dataplane.grpc_vs_nginx", compared.rate, "ratio")


def workers(stage: Stage, rounds: int) -> None:
    """Two worker processes beside one, each with the same share of a core, which leaves enough for the load."""
    with stage.activator("0,1", 1) as single, stage.activator("0,1", 2) as double:
        rates: dict[int, list[float]] = {1: [], 2: []}
        with contextlib.ExitStack() as stack:
            for activator in (single, double):
                for pid in activator.workers():
                    stack.enter_context(bounded(pid, WORKER_PART))
            for number in range(rounds + 1):
                for count, activator in ((1, single), (2, double)):
                    rate = load.wrk(activator.port, 64, 3, cores="0,1").per_second
                    rates[count] += [rate] if number else []  # the first warms up
    print(f"workers with {WORKER_PART:.0%} of a core each: one {median(rates[1]):.0f}/s, two {median(rates[2]):.0f}/s")
    result("dataplane.workers2_vs_1", median(rates[2]) / median(rates[1]), "ratio")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=5, help="rounds of each measurement")
    parser.add_argument("--only", default="", help="small, latency, h2, grpc, streams, websockets, queued, workers")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as directory:
        stage = Stage(Path(directory))
        try:
            stage.start()
            stage.route(HOST, (Endpoint("app-1", HOST, stage.app),), RequestPolicy())
            _all(stage, options.rounds, set(options.only.split(",")) - {""})
        finally:
            stage.close()


def _all(stage: Stage, rounds: int, only: set[str]) -> None:
    def is_selected(name: str) -> bool:
        return not only or name in only

    with stage.activator() as activator:
        if is_selected("small"):
            small_requests(stage, activator, rounds)
        if is_selected("latency"):
            added_latency(stage, activator, rounds)
        if is_selected("h2"):
            http2(stage, activator, rounds)
        if is_selected("grpc"):
            grpc(stage, activator, rounds)
        if is_selected("streams"):
            streams(stage, activator, min(rounds, 3))
    # Memory is measured in fresh processes: what an earlier measurement left behind would hide what this one takes.
    if is_selected("websockets"):
        with stage.activator() as activator:
            uvloop.run(_idle_websockets(stage, activator, 5000))
    if is_selected("queued"):
        with stage.activator() as activator:
            uvloop.run(_queued(stage, activator, 10_000))
    if is_selected("workers"):
        workers(stage, rounds)


if __name__ == "__main__":
    from activator.frontend.listeners import raise_file_limit

    raise_file_limit()
    main()
