"""Who needs no token on the plain port: processes of the user who runs the platform, and no one else.

Other users of the machine, containers that share its network, and sockets that are closed already are tried for real,
which needs root.
"""

import asyncio
import os
import shutil
import socket
import subprocess
import sys
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import httpx
import pytest

from api.app import create_app
from api.auth import access
from api.http import peers, server
from api.http.connections import Connections
from api.http.peers import Peers
from knoll.process import socket_owner
from knoll.process.settings import ApiSettings
from knoll.process.socket_owner import Owner
from tests.component.api.conftest import Running, serving
from tests.component.api.raw import connected
from tests.doubles.memory_store import MemoryStore
from tests.waiting import eventually

OTHER_UID = 65534
SECRETS = "/api/v1/namespaces/default/secrets"
as_root = pytest.mark.skipif(os.geteuid() != 0, reason="needs root, to be another user")

ASK = """
import encodings.idna, os, socket, sys
host, port, uid = sys.argv[1], int(sys.argv[2]), int(sys.argv[3])
if uid:
    os.setgroups([]); os.setgid(uid); os.setuid(uid)
asking = socket.create_connection((host, port))
head = ["GET /api/v1/namespaces/default/secrets HTTP/1.1", "Host: localhost", "Connection: close", "", ""]
asking.sendall("\\r\\n".join(head).encode())
answer = b""
while data := asking.recv(65536):
    answer += data
print(answer.decode())
"""


@pytest.fixture
async def api(settings: ApiSettings) -> AsyncIterator[Running]:
    async with serving(MemoryStore(), settings) as running:
        yield running


async def ask(api: Running, uid: int, *before: str) -> str:
    """What a process of another user hears. Args: before: what its command begins with."""
    port = api.url.rpartition(":")[2]
    process = await asyncio.create_subprocess_exec(
        *before, sys.executable, "-c", ASK, "127.0.0.1", port, str(uid),
        stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.STDOUT,
    )  # fmt: skip
    out, _ = await asyncio.wait_for(process.communicate(), 30)
    return out.decode()


async def test_the_user_of_the_api_process_needs_no_token(api: Running) -> None:
    assert "200 OK" in await ask(api, 0)
    assert (await api.client.get(SECRETS)).status_code == 200


@as_root
async def test_the_response_for_another_user_of_the_machine_explains_how_to_get_a_token(api: Running) -> None:
    answer = await ask(api, OTHER_UID)
    assert "401 Unauthorized" in answer
    assert f"the client has uid {OTHER_UID}" in answer
    assert "knoll kubeconfig --service-account NAME" in answer
    assert "200 OK" in await ask(api, 0)


@as_root
async def test_root_of_a_container_that_shares_the_network_is_not_root_here(api: Running) -> None:
    assert "200 OK" in await ask(api, 0, "unshare", "--fork")
    answer = await ask(api, 0, "unshare", "--fork", "--pid", "--mount-proc")
    assert "401 Unauthorized" in answer
    assert "it runs in a container" in answer


@as_root
async def test_a_socket_that_its_owner_closed_already_is_not_root_s(api: Running) -> None:
    """The kernel gives it uid 0. What is asked must not happen although no one waits for the answer."""
    port = int(api.url.rpartition(":")[2])
    body = b'{"apiVersion":"v1","kind":"ConfigMap","metadata":{"name":"taken"}}'
    head = b"POST /api/v1/namespaces/default/configmaps HTTP/1.1\r\nHost: localhost\r\nContent-Length: %d\r\n\r\n"
    program = (
        "import encodings.idna,os,socket\nos.setgid(65534); os.setuid(65534)\n"
        f"for _ in range(50):\n  s=socket.create_connection(('127.0.0.1',{port}));"
        f"s.sendall({head % len(body) + body!r}); s.close()\n"
    )
    process = await asyncio.create_subprocess_exec(sys.executable, "-c", program)
    assert await process.wait() == 0
    assert (await api.client.get("/api/v1/namespaces/default/configmaps/taken")).status_code == 404


@as_root
async def test_the_owner_of_a_connection_is_cached_only_for_that_connection(api: Running) -> None:
    for _ in range(3):
        async with connected(api.url) as raw:
            for _ in range(2):
                await raw.send(b"GET /api/v1/namespaces HTTP/1.1\r\nHost: localhost\r\n\r\n")
                assert (await raw.answer()).code == 200
        assert "401 Unauthorized" in await ask(api, OTHER_UID)


async def test_only_root_and_the_user_of_the_platform_need_no_token(settings: ApiSettings) -> None:
    app = create_app(MemoryStore(), settings)
    async with (
        plain_server(access.TrustedPort(app, Peers(uid=12345))) as url,
        httpx.AsyncClient(base_url=url) as client,
    ):
        answer = await client.get(SECRETS)
        assert answer.status_code == (401 if os.geteuid() else 200), "root may do everything"
        assert (await client.get("/readyz")).status_code in (200, 503)


@pytest.mark.parametrize("host", ["127.0.0.1", "::1"])
@pytest.mark.parametrize("way", ["_by_netlink", "_by_proc"])
def test_the_kernel_names_the_owner_of_a_connection(host: str, way: str) -> None:
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    with socket.create_server((host, 0), family=family) as listener:
        with socket.create_connection(listener.getsockname()[:2]) as client:
            owner = getattr(socket_owner, way)(client.getsockname(), listener.getsockname())
            assert owner == Owner(os.geteuid(), os.fstat(client.fileno()).st_ino)
            assert peers.is_held_here(owner)
            address = client.getsockname()
        closed = getattr(socket_owner, way)(address, listener.getsockname())
        assert closed is None or closed.inode == 0
    assert getattr(socket_owner, way)((host, 1), (host, 2)) is None


def test_a_connection_of_two_families_is_one() -> None:
    with (
        socket.create_server(("::", 0), family=socket.AF_INET6, dualstack_ipv6=True) as listener,
        socket.create_connection(("127.0.0.1", listener.getsockname()[1])) as client,
    ):
        server_end, seen = listener.accept()
        with server_end:
            assert seen[0].startswith("::ffff:")
            owner = socket_owner.owner_of(seen[:2], server_end.getsockname()[:2])
            assert owner == Owner(os.geteuid(), os.fstat(client.fileno()).st_ino)


def test_a_remote_client_is_trusted_only_at_the_gateways_address(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(peers, "default_gateway", lambda: "172.18.0.1")
    here = ("172.18.0.2", 8001)
    through_the_engine = Peers(gateway=True)
    assert through_the_engine.refusal(("172.18.0.1", 40000), here) == ""
    assert through_the_engine.refusal(("::ffff:172.18.0.1", 40000), here) == ""
    for other in ("172.18.0.3", "10.201.128.5", "192.0.2.9"):
        assert "clients on this machine" in through_the_engine.refusal((other, 40000), here)
    assert "clients on this machine" in Peers().refusal(("172.18.0.1", 40000), here)
    assert Peers().refusal(None, here) != ""


ROUTES = """\
Iface	Destination	Gateway 	Flags	RefCnt	Use	Metric	Mask		MTU	Window	IRTT
eth0	00000000	010012AC	0003	0	0	0	00000000	0	0	0
eth0	000012AC	00000000	0001	0	0	0	0000FFFF	0	0	0
"""


@pytest.mark.parametrize(
    ("text", "address"),
    [(ROUTES, "172.18.0.1"), (ROUTES.splitlines()[0], ""), ("", ""), (ROUTES.replace("0003", "0001"), "")],
)
def test_the_default_gateway_is_read_from_the_kernel_s_table(text: str, address: str) -> None:
    assert peers.default_gateway(lambda: text) == address


def plain_server(app: object) -> "_Serving":
    return _Serving(app)


class _Serving:
    """An application on a free port, or on a Unix socket."""

    def __init__(self, app: object, unix: Path | None = None) -> None:
        self._server = server.server(app, Connections(100, lambda: 100), host="127.0.0.1", unix=unix)  # type: ignore[arg-type]
        self._unix = unix

    async def __aenter__(self) -> str:
        self._work = asyncio.create_task(self._server.serve())
        await eventually(lambda: self._server.started or self._work.done(), condition="the API")
        if self._unix:
            return str(self._unix)
        return f"http://127.0.0.1:{self._server.servers[0].sockets[0].getsockname()[1]}"

    async def __aexit__(self, *_: object) -> None:
        self._server.should_exit = True
        await self._work


@pytest.fixture
def folder(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """One that every user may enter, with a path short enough for a socket."""
    made = Path("/tmp") / f"knoll-{os.getpid()}"
    made.mkdir(exist_ok=True)
    made.chmod(0o755)
    yield made
    shutil.rmtree(made)


async def test_a_unix_socket_is_accessible_only_to_its_owner(settings: ApiSettings, folder: Path) -> None:
    path = folder / "api.sock"
    stale = socket.socket(socket.AF_UNIX)
    stale.bind(str(path))
    stale.close()
    app = create_app(MemoryStore(), settings)
    async with _Serving(access.TrustedPort(app, Peers()), path):
        assert path.stat().st_mode & 0o777 == 0o600
        async with httpx.AsyncClient(transport=httpx.AsyncHTTPTransport(uds=str(path)), base_url="http://x") as client:
            assert (await client.get(SECRETS)).status_code == 200
        if os.geteuid() == 0:
            command = ["setpriv", "--reuid=65534", "--clear-groups", "curl", "-sS", "--unix-socket", str(path)]
            refused = await asyncio.to_thread(
                subprocess.run, [*command, f"http://x{SECRETS}"], capture_output=True, text=True
            )
            assert refused.returncode == 7, refused
            path.chmod(0o666)
            seen = await asyncio.to_thread(
                subprocess.run, [*command, f"http://x{SECRETS}"], capture_output=True, text=True
            )
            assert '"code":401' in seen.stdout


async def test_a_file_in_the_place_of_the_socket_is_left_alone(folder: Path) -> None:
    path = folder / "api.sock"
    path.write_text("mine")
    with pytest.raises(OSError, match=r"cannot listen on .*api\.sock"):
        server.private_socket(path)
    assert path.read_text() == "mine"
