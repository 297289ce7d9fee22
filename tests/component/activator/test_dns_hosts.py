"""Cluster-local names from the routing table to the answers of a real dnsmasq."""

import asyncio
import os
import signal
import socket
import struct
import subprocess
import sys
import tempfile
from collections.abc import AsyncIterator, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from knoll.messages.routing import ROUTING, RequestPolicy, RouteEntry, Share
from knoll.process import dns_server
from knoll.redis.client import RedisClient, connect
from knoll.tables.redis_tables import RedisTable
from knoll.values.names import local_hosts
from tests.component.activator.test_process import running, until_heard
from tests.conftest import free_port, need
from tests.waiting import eventually, eventually_sync

pytestmark = pytest.mark.redis

GATEWAY, ELSEWHERE = "127.0.0.1", "192.0.2.7"
A, AAAA = 1, 28
NO_ERROR, NAME_ERROR = 0, 3


def ask(port: int, name: str, kind: int = A) -> tuple[int, list[str]]:
    """One question to the server on that port: the answer's code, and its addresses (RFC 1035 §4)."""
    question = b"".join(bytes([len(part)]) + part.encode() for part in name.split(".")) + b"\0"
    message = struct.pack(">6H", 7, 0x0100, 1, 0, 0, 0) + question + struct.pack(">2H", kind, 1)
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as client:
        client.settimeout(5)
        client.connect(("127.0.0.1", port))
        client.send(message)
        answer = client.recv(4096)
    _, flags, _, count, _, _ = struct.unpack(">6H", answer[:12])
    records = answer[len(message) :]
    addresses = []
    for _ in range(count):  # each points back to the question's name
        (length,) = struct.unpack(">H", records[10:12])
        addresses.append(socket.inet_ntop(socket.AF_INET if kind == A else socket.AF_INET6, records[12 : 12 + length]))
        records = records[12 + length :]
    return flags & 0xF, addresses


@contextmanager
def server(port: int, command: list[str], *more: str) -> Iterator[None]:
    """A dnsmasq that answers."""
    need("DNSMASQ", dns_server.program() is not None)
    process = subprocess.Popen([*command, *more], stderr=subprocess.DEVNULL)

    def answers() -> bool:
        assert process.poll() is None
        try:
            return bool(ask(port, "localhost"))
        except (ConnectionRefusedError, TimeoutError):
            return False

    try:
        eventually_sync(answers, within=30, condition="dnsmasq")
        yield
    finally:
        process.send_signal(signal.SIGTERM)
        process.wait(30)


@pytest.fixture
def folder() -> Iterator[Path]:
    """Folder of the host files. Not in `tmp_path`, which the unprivileged user of the DNS server cannot enter."""
    with tempfile.TemporaryDirectory(prefix="knoll-test-names-") as made:
        Path(made).chmod(0o755)
        yield Path(made)


@pytest.fixture
def public_dns() -> Iterator[int]:
    """The port of the server for all other names: each has an address there, of either family."""
    port = free_port()
    command = ["dnsmasq", "--keep-in-foreground", "--conf-file=/dev/null", "--pid-file", "--no-resolv", "--no-hosts",
               f"--port={port}", "--listen-address=127.0.0.1", "--bind-interfaces",
               f"--address=/#/{ELSEWHERE}", "--address=/#/2001:db8::7"]  # fmt: skip
    with server(port, command):
        yield port


@pytest.fixture
def names(folder: Path, public_dns: int) -> Iterator[int]:
    """The port of the server that instances ask."""
    port = free_port()
    with server(port, dns_server.command(folder, "127.0.0.1", port), "--no-resolv", f"--server=127.0.0.1#{public_dns}"):
        yield port


@pytest.fixture
async def redis(redis_url: str) -> AsyncIterator[RedisClient]:
    client = connect(redis_url, "test")
    yield client
    await client.aclose()


def entry(*names: str) -> RouteEntry:
    shares: tuple[Share, ...] = (Share("default/r", 100),)
    hosts = {host: shares for name in names for host in local_hosts(name, "default")}
    return RouteEntry(hosts={}, revisions={"default/r": RequestPolicy()}, local_hosts=hosts)


async def answered(port: int, name: str, kind: int = A) -> tuple[int, list[str]]:
    return await asyncio.to_thread(ask, port, name, kind)


@pytest.mark.parametrize("workers", [1, 2])
async def test_names_come_change_and_go_with_their_routes(
    redis: RedisClient, redis_url: str, folder: Path, names: int, workers: int
) -> None:
    table = RedisTable(redis, ROUTING, RouteEntry)
    with running(redis_url, workers, KNOLL_NAMES_DIR=str(folder), KNOLL_ACTIVATOR_LOCAL_HOST=GATEWAY) as process:
        await process.ready()
        version = await table.put("default/shop", entry("shop"))
        await until_heard(redis, ROUTING, version, workers + 1)
        assert (folder / "default.shop").exists(), "the names are acknowledged before they are there"

        async def leads(name: str, *addresses: str) -> None:
            async def check() -> bool:
                code, answered_addresses = await answered(names, name)
                return (code, answered_addresses) == (NO_ERROR if addresses else NAME_ERROR, list(addresses))

            await eventually(check, within=30, condition=f"{name} leads to {addresses}")

        await leads("shop.default.svc.cluster.local", GATEWAY)
        await leads("shop.default.svc", GATEWAY)
        await leads("SHOP.Default.svc.cluster.local", GATEWAY)
        await leads("v1-shop.default.svc.cluster.local")
        await table.put("default/shop", entry("shop", "v1-shop"))
        await leads("v1-shop.default.svc.cluster.local", GATEWAY)
        await table.put("default/shop", entry("shop"))
        await leads("v1-shop.default.svc.cluster.local")
        await leads("shop.default.svc.cluster.local", GATEWAY)
        await table.remove("default/shop")
        await leads("shop.default.svc.cluster.local")
        assert process.end() == 0


async def test_cluster_local_names_are_never_forwarded_and_others_are(folder: Path, names: int) -> None:
    (folder / "default.shop").write_text(f"{GATEWAY} shop.default.svc.cluster.local\n")

    async def there() -> bool:
        return await answered(names, "shop.default.svc.cluster.local") == (NO_ERROR, [GATEWAY])

    await eventually(there, within=30)
    # The forwarded server would answer differently for each of these.
    assert await answered(names, "shop.default.svc.cluster.local", AAAA) == (NO_ERROR, [])
    for name in ("nope.default.svc.cluster.local", "nope.default.svc", "example.com.svc.cluster.local", "redis"):
        assert await answered(names, name) == (NAME_ERROR, []), name
        assert await answered(names, name, AAAA) == (NAME_ERROR, []), name
    assert await answered(names, "example.com") == (NO_ERROR, [ELSEWHERE])
    assert await answered(names, "example.com", AAAA) == (NO_ERROR, ["2001:db8::7"])


def test_a_restarted_server_serves_the_names_immediately(folder: Path) -> None:
    (folder / "default.shop").write_text(f"{GATEWAY} shop.default.svc.cluster.local\n")
    port = free_port()
    for _ in range(2):
        with server(port, dns_server.command(folder, "127.0.0.1", port)):
            assert ask(port, "shop.default.svc.cluster.local") == (NO_ERROR, [GATEWAY])


async def test_a_restarted_activator_removes_stale_names(redis: RedisClient, redis_url: str, folder: Path) -> None:
    (folder / "default.gone").write_text(f"{GATEWAY} gone.default.svc.cluster.local\n")
    version = await RedisTable(redis, ROUTING, RouteEntry).put("default/shop", entry("shop"))
    with running(redis_url, KNOLL_NAMES_DIR=str(folder), KNOLL_ACTIVATOR_LOCAL_HOST=GATEWAY) as process:
        await process.ready()
        await until_heard(redis, ROUTING, version, 2)
        assert os.listdir(folder) == ["default.shop"]


def test_the_server_reports_what_it_lacks() -> None:
    command = [sys.executable, "-m", "knoll.process.dns_server"]
    plain = {key: value for key, value in os.environ.items() if key != "KNOLL_NAMES_DIR"}
    done = subprocess.run(command, capture_output=True, text=True, env=plain)
    assert done.returncode
    assert "KNOLL_NAMES_DIR is not set" in done.stderr


def test_the_server_reports_that_dnsmasq_is_missing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.setenv("KNOLL_NAMES_DIR", str(tmp_path))
    monkeypatch.setattr(dns_server, "PLACES", "")
    with pytest.raises(SystemExit, match="dnsmasq-base"):
        dns_server.main()
