"""Three activator processes, each with a node's name and certificate, and a real Redis."""

import asyncio
import contextlib
import os
import signal
import socket
import ssl
import subprocess
import sys
from collections.abc import AsyncIterator, Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

import pytest

from activator.sync.node_certificate import AUTHORITY, CERTIFICATE, KEY, RELAY
from knoll import __version__
from knoll.auth import certificates
from knoll.messages.endpoints import ENDPOINTS, Endpoint, RevisionEndpoints
from knoll.messages.nodes import NODES, Node
from knoll.messages.routing import ROUTING, RequestPolicy
from knoll.redis.client import RedisClient
from knoll.tables.redis_tables import RedisTable
from knoll.values import versions
from tests.component.activator.machines import certify, new_authority, node, write
from tests.component.activator.stage import HOST, REVISION, App, Connection, read_request
from tests.component.activator.test_process import ROOT, Counting, Process, load, running, tell, until_heard
from tests.conftest import free_port
from tests.waiting import eventually

pytestmark = pytest.mark.redis
NAMES = ("n1", "n2", "n3")
GIB = 1024**3


@dataclass
class Cluster:
    """The activators by the name of their node."""

    redis: RedisClient
    processes: dict[str, Process]
    folders: dict[str, Path]
    relays: dict[str, int]
    authority: certificates.Issued
    workers: int

    async def tell(self, *endpoints: Endpoint, policy: RequestPolicy | None = None) -> None:
        """Publish a route and its endpoints; returns when every activator has applied both."""
        version = await tell(self.redis, endpoints, policy)
        await until_heard(self.redis, ROUTING, version, len(self.processes) * self.workers)
        table = RedisTable(self.redis, ENDPOINTS, RevisionEndpoints)
        await until_heard(self.redis, ENDPOINTS, await table.version(), len(self.processes) * self.workers)


@contextlib.asynccontextmanager
async def cluster(redis: RedisClient, redis_url: str, folder: Path, workers: int = 1) -> AsyncIterator[Cluster]:
    authority = new_authority()
    relays = {name: free_port() for name in NAMES}
    folders = {name: certify(folder / name, name, authority) for name in NAMES}
    table = RedisTable(redis, NODES, Node)
    for name, port in relays.items():
        await table.put(name, node(name, port))
    with contextlib.ExitStack() as stack:
        processes = {
            name: stack.enter_context(
                running(
                    redis_url, workers, KNOLL_NODE=name, KNOLL_RELAY_PORT=str(relays[name]),
                    KNOLL_NODE_DIR=str(folders[name]), KNOLL_DRAIN_SECONDS="10",
                )
            )
            for name in NAMES
        }  # fmt: skip
        for process in processes.values():
            await process.ready()
        yield Cluster(redis, processes, folders, relays, authority, workers)


def on(name: str, app: App) -> Endpoint:
    return Endpoint(app.name, "127.0.0.1", app.port, node=name)


@pytest.mark.parametrize("workers", [1, 2])
async def test_no_instance_ever_holds_two_over_three_activators(
    redis: RedisClient, redis_url: str, tmp_path: Path, workers: int
) -> None:
    counting = Counting()
    apps = [await App(counting.handler(f"i{n}"), f"i{n}").start() for n in range(6)]  # type: ignore[arg-type]
    async with cluster(redis, redis_url, tmp_path, workers) as made:
        placed = [on(NAMES[n % 3], app) for n, app in enumerate(apps)]
        await made.tell(*placed, policy=RequestPolicy(concurrency=1))
        counts = 4998, 3000, 2002
        statuses = await asyncio.gather(
            *(
                load(process, count, count // 100)
                for process, count in zip(made.processes.values(), counts, strict=True)
            )
        )
        total = [status for each in statuses for status in each]
        assert set(total) == {200}
        assert (counting.most, counting.total) == (1, len(total))
        assert len(total) >= 9_900
    for app in apps:
        await app.stop()


async def test_one_instance_serves_requests_of_three_activators_one_by_one(
    redis: RedisClient, redis_url: str, tmp_path: Path
) -> None:
    counting = Counting()
    app = await App(counting.handler("i"), "i").start()  # type: ignore[arg-type]
    async with cluster(redis, redis_url, tmp_path) as made:
        await made.tell(on("n2", app), policy=RequestPolicy(concurrency=1))
        statuses = await asyncio.gather(*(load(process, 400, 8) for process in made.processes.values()))
        assert {status for each in statuses for status in each} == {200}
        assert (counting.most, counting.total) == (1, 1200)
    await app.stop()


class Held:
    """An app whose requests wait until a test lets them go."""

    def __init__(self) -> None:
        self.inside = 0
        self.proceed = asyncio.Event()

    async def handler(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while True:
            request = await read_request(reader)
            self.inside += 1
            if request.line.startswith("GET /started"):
                writer.write(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n1\r\na\r\n")
            await self.proceed.wait()
            writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok")


async def test_a_killed_owner_loses_only_requests_it_had_begun(
    redis: RedisClient, redis_url: str, tmp_path: Path
) -> None:
    held, spare = Held(), await App(name="spare").start()
    app = await App(held.handler).start()
    async with cluster(redis, redis_url, tmp_path) as made:
        await made.tell(on("n2", app))
        clients: list[Connection] = []
        for method, path in (("GET", "/started"), ("GET", "/"), ("POST", "/")):
            clients.append((await made.processes["n1"].connect()).get(path, method=method))
            await eventually(lambda: held.inside == len(clients))
        assert (await clients[0].head())[0] == 200
        await made.tell(on("n2", app), on("n3", spare))
        made.processes["n2"].child.kill()
        assert b"0\r\n\r\n" not in await clients[0].closed(), "a response that began is cut off, visibly"
        assert (await clients[1].answer()).status == 200, "what may be repeated is"
        assert (await clients[2].answer()).status == 502, "a POST is not"
        assert [request.line for request in spare.requests] == ["GET / HTTP/1.1"]
        await RedisTable(redis, NODES, Node).remove("n2")
        assert {await made.processes["n1"].get() for _ in range(20)} == {200}
        for client in clients:
            client.close()
    await app.stop()
    await spare.stop()


async def test_an_owner_that_stops_or_renews_its_workers_loses_nothing(
    redis: RedisClient, redis_url: str, tmp_path: Path
) -> None:
    app = await App().start()
    async with cluster(redis, redis_url, tmp_path, workers=2) as made:
        await made.tell(on("n2", app))
        done = asyncio.Event()
        outcomes: list[tuple[int, str]] = []

        async def ask(process: Process) -> None:
            client = await process.connect()
            while not done.is_set():
                client.get(method="POST", extra="Content-Length: 2\r\n").send("hi")
                answer = await client.answer()
                outcomes.append((answer.status, answer.text))
            client.close()

        asking = [asyncio.create_task(ask(made.processes[name])) for name in ("n1", "n3") for _ in range(4)]
        owner = made.processes["n2"]
        for _ in range(3):
            before = owner.workers()
            owner.child.send_signal(signal.SIGHUP)
            await eventually(lambda: len(owner.workers()) == 2 and not owner.workers() & before, within=60)  # noqa: B023
        done.set()
        await asyncio.gather(*asking)
        assert set(outcomes) == {(200, "hello")}
        assert len(outcomes) > 100
    await app.stop()


def rss_mib(process: Process) -> float:
    for line in Path(f"/proc/{process.child.pid}/status").read_text().splitlines():
        if line.startswith("VmRSS"):
            return int(line.split()[1]) / 1024
    return 0.0


@contextlib.contextmanager
def program(*command: str) -> Iterator[None]:
    environment = {**os.environ, "PYTHONPATH": f"{ROOT / 'platform'}{os.pathsep}{ROOT}"}
    child = subprocess.Popen(command, env=environment, cwd=ROOT)
    try:
        yield
    finally:
        child.terminate()
        child.wait(20)


def accepts(port: int) -> bool:
    with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", port), 1):
        return True
    return False


@pytest.mark.parametrize("direction", ["up", "down"])
async def test_a_gibibyte_passes_with_flat_memory(
    redis: RedisClient, redis_url: str, tmp_path: Path, direction: str
) -> None:
    port = free_port()
    file = tmp_path / "file"
    with file.open("wb") as out:
        out.truncate(GIB)
    module = ["bench.lib.upload_app", str(port)]
    if direction == "down":
        module = ["http.server", str(port), "--bind", "127.0.0.1", "--directory", str(tmp_path)]
    async with cluster(redis, redis_url, tmp_path) as made:
        with program(sys.executable, "-m", *module):
            await eventually(lambda: accepts(port))
            await made.tell(Endpoint("app-1", "127.0.0.1", port, node="n2"))
            url = f"http://127.0.0.1:{made.processes['n1'].port}/file"
            command = ["curl", "-sS", "--fail", "-o", "/dev/null", "-H", f"Host: {HOST}", "-w", "%{size_download}", url]
            if direction == "up":
                command += ["-T", str(file), "-H", "Expect:"]
            warm = [each for each in command if each not in ("-T", str(file))]
            await asyncio.to_thread(subprocess.run, [*warm, "-r", "0-99"], check=True, capture_output=True)
            before = {name: rss_mib(process) for name, process in made.processes.items()}
            peak = dict(before)
            passing = await asyncio.create_subprocess_exec(*command, stdout=subprocess.PIPE)
            ended = asyncio.create_task(passing.wait())
            while not ended.done():
                peak = {name: max(peak[name], rss_mib(process)) for name, process in made.processes.items()}
                await asyncio.wait([ended], timeout=0.05)
            assert ended.result() == 0
            assert passing.stdout is not None
            assert int(await passing.stdout.read()) == (GIB if direction == "down" else 0)
            for name in NAMES:
                assert peak[name] - before[name] < 16, f"{name} grew from {before[name]} to {peak[name]} MiB"


def api_certificate(folder: Path, authority: certificates.Issued) -> Path:
    """A certificate of the same authority that is not one of a node."""
    issued = certificates.issue(authority, ["localhost"], datetime.now(UTC))
    write(folder, authority.certificate_pem, issued.certificate_pem, issued.key_pem)
    return folder


def refusal(port: int, context: ssl.SSLContext) -> str:
    """Return the relay's response to a request; empty if it ends the connection."""
    request = f"RELAY/1 default/app-00001 app-1 now\r\nGET / HTTP/1.1\r\nHost: {HOST}\r\n\r\n"
    plain = socket.create_connection(("127.0.0.1", port), 10)
    try:
        with plain, context.wrap_socket(plain) as connection:
            connection.sendall(request.encode())
            received = ""
            while "\r\n\r\n" not in received and (data := connection.recv(1000)):
                received += data.decode()
            return received
    except (ssl.SSLError, ConnectionError):
        return ""


async def test_only_nodes_of_the_platform_reach_the_relay(redis: RedisClient, redis_url: str, tmp_path: Path) -> None:
    app = await App().start()
    async with cluster(redis, redis_url, tmp_path) as made:
        await made.tell(on("n2", app))
        stranger = certify(tmp_path / "stranger", "n1", new_authority(), trusted=made.authority)
        api = api_certificate(tmp_path / "api", made.authority)
        for folder, expected in (
            (made.folders["n3"], "RELAY/1 ready\r\nRELAY/1 load 1\r\nHTTP/1.1 200"),
            (stranger, ""),
            (api, ""),
            (None, ""),
        ):
            context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
            context.check_hostname = False
            context.set_alpn_protocols([versions.protocol(RELAY, __version__)])
            context.load_verify_locations(made.folders["n1"] / AUTHORITY)
            if folder is not None:
                context.load_cert_chain(folder / CERTIFICATE, folder / KEY)
            answer = await asyncio.to_thread(refusal, made.relays["n2"], context)
            assert answer.partition(" OK")[0] == expected, folder
        assert len(app.requests) == 1
        plain = Connection(*await asyncio.open_connection("127.0.0.1", made.relays["n2"]))
        assert await plain.get().closed() == b""
        plain.close()
        assert len(app.requests) == 1
    await app.stop()


async def test_a_node_under_another_name_gets_no_request_until_it_has_its_certificate(
    redis: RedisClient, redis_url: str, tmp_path: Path
) -> None:
    app = await App().start()
    async with cluster(redis, redis_url, tmp_path) as made:
        certify(made.folders["n2"], "n3", made.authority)
        owner = made.processes["n2"].child.stdout
        assert owner is not None
        lines = iter(owner.readline, b"")
        for _ in range(2):  # the first certificate was read at the start
            await asyncio.to_thread(lambda: next(line for line in lines if b"node certificate read" in line))
        await made.tell(on("n2", app))
        client = (await made.processes["n1"].connect()).get(method="POST", extra="Content-Length: 0\r\n")
        waiting = f'knoll_requests_waiting{{revision="{REVISION}"}} 1.0'

        async def waits() -> bool:
            return waiting in (await asyncio.to_thread(made.processes["n1"].ask, "/metrics"))[1]

        await eventually(waits)
        assert not app.requests
        certify(made.folders["n2"], "n2", made.authority)
        assert (await client.answer()).status == 200
        client.close()
    await app.stop()
