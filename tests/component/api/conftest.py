"""A real API on a real socket, on both stores; kubectl with a home of its own."""

import asyncio
import os
import shutil
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
import pytest

from api.app import create_app
from api.auth.access import TrustedPort
from api.http import server as servers
from api.http.connections import Connections
from api.http.peers import Peers
from api.resource import bootstrap
from knoll.config.platform import PlatformConfig
from knoll.process.settings import ApiSettings
from knoll.redis.client import RedisClient, connected
from knoll.store.protocol import Store
from knoll.store.redis_store import RedisStore
from knoll.values.json import Json
from tests.conftest import need
from tests.doubles.memory_store import MemoryStore
from tests.waiting import eventually

SERVICES = "/apis/serving.knative.dev/v1/namespaces/default/services"
CONFIG_MAPS = "/api/v1/namespaces/default/configmaps"
Make = Callable[..., Json]
"""Makes an object from its name and its metadata."""


@pytest.fixture(params=["memory", pytest.param("redis", marks=pytest.mark.redis)])
async def store(request: pytest.FixtureRequest) -> AsyncIterator[Store]:
    if request.param == "memory":
        yield MemoryStore()
        return
    async with connected(request.getfixturevalue("redis_url"), "test") as redis:
        store = RedisStore(redis)
        yield store
        await store.close()


@dataclass(frozen=True, slots=True)
class Running:
    """An API that serves."""

    url: str
    client: httpx.AsyncClient
    store: Store
    app: Any
    settings: ApiSettings


@pytest.fixture
def settings(tmp_path: Path) -> ApiSettings:
    return ApiSettings(uploads_dir=tmp_path / "uploads", max_upload_bytes=1024 * 1024, gateway_address="192.0.2.7")


@asynccontextmanager
async def serving(
    store: Store,
    settings: ApiSettings,
    redis: RedisClient | None = None,
    config: Callable[[], PlatformConfig] = PlatformConfig,
) -> AsyncIterator[Running]:
    """The API on a free port, with the objects that exist from the first start."""
    await bootstrap.create_all(store, settings)
    app = create_app(store, settings, redis=redis, config=config)
    connections = Connections(4096, lambda: config().security.max_connections_per_address)
    server = servers.server(TrustedPort(app, Peers()), connections, host="127.0.0.1", first=True)
    work = asyncio.create_task(server.serve())
    await eventually(lambda: server.started or work.done(), condition="the API")
    port = server.servers[0].sockets[0].getsockname()[1]
    url = f"http://127.0.0.1:{port}"
    try:
        async with httpx.AsyncClient(base_url=url, timeout=30) as client:
            yield Running(url, client, store, app, settings)
    finally:
        app.state.watches.close()
        server.should_exit = True
        await work


@pytest.fixture
async def api(store: Store, settings: ApiSettings) -> AsyncIterator[Running]:
    async with serving(store, settings) as running:
        yield running


@dataclass(frozen=True, slots=True)
class Output:
    """The output of a command."""

    code: int
    out: str
    err: str


@dataclass(frozen=True, slots=True)
class Kubectl:
    """kubectl against one API, with its own configuration and cache."""

    program: str
    url: str
    home: Path

    def command(self, *arguments: str) -> tuple[list[str], dict[str, str]]:
        home = str(self.home)
        environment = {
            "PATH": os.environ["PATH"],
            "HOME": home,
            "KUBECONFIG": f"{home}/config",
            "KUBECACHEDIR": f"{home}/cache",
        }
        return [self.program, "--server", self.url, "--cache-dir", f"{home}/cache", *arguments], environment

    async def start(self, *arguments: str) -> asyncio.subprocess.Process:
        """For a command that runs until it is ended."""
        command, environment = self.command(*arguments)
        pipe = asyncio.subprocess.PIPE
        return await asyncio.create_subprocess_exec(*command, stdout=pipe, stderr=pipe, env=environment)

    async def run(self, *arguments: str, stdin: str = "") -> Output:
        """Run to the end, whatever the exit code is."""
        command, environment = self.command(*arguments)
        pipe = asyncio.subprocess.PIPE
        # Without input there is no pipe: a command may end before nothing is written to it, which uvloop rejects.
        reading = pipe if stdin else asyncio.subprocess.DEVNULL
        process = await asyncio.create_subprocess_exec(
            *command, stdin=reading, stdout=pipe, stderr=pipe, env=environment
        )
        out, err = await asyncio.wait_for(process.communicate(stdin.encode() or None), 60)
        return Output(process.returncode or 0, out.decode(), err.decode())

    async def __call__(self, *arguments: str, stdin: str = "") -> str:
        """Run to the end; the test fails when it does. Returns what it printed."""
        done = await self.run(*arguments, stdin=stdin)
        assert done.code == 0, f"kubectl {' '.join(arguments)}: {done.out}{done.err}"
        return done.out


@pytest.fixture
def kubectl(api: Running, tmp_path: Path) -> Kubectl:
    need("KUBECTL", shutil.which("kubectl") is not None)
    (tmp_path / "home").mkdir()
    (tmp_path / "home" / "config").touch()
    return Kubectl("kubectl", api.url, tmp_path / "home")


@pytest.fixture
def service() -> Callable[..., Json]:
    """Makes a Service's manifest."""

    def make(name: str = "hello", *, version: str = "v1", **more: Any) -> Json:
        container = {"image": "registry.example/hello:v1", "env": [{"name": "RESOURCE", "value": "v1"}]}
        return {
            "apiVersion": f"serving.knative.dev/{version}",
            "kind": "Service",
            "metadata": {"name": name, **more},
            "spec": {"template": {"spec": {"containers": [container]}}},
        }

    return make


@pytest.fixture
def config_map() -> Callable[..., Json]:
    """Makes a ConfigMap's manifest."""

    def make(name: str = "settings", data: Json | None = None, **more: Any) -> Json:
        return {
            "apiVersion": "v1",
            "kind": "ConfigMap",
            "metadata": {"name": name, **more},
            "data": {"colour": "red"} if data is None else data,
        }

    return make


def reason(answer: Any) -> tuple[int, str]:
    """The code and the reason of a Status that reports a failure."""
    body = answer.json()
    assert body["kind"] == "Status", body
    assert body["status"] == "Failure"
    assert body["code"] == answer.status_code
    return answer.status_code, body["reason"]
