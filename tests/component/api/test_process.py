"""The API as a process: it starts, serves, and ends when it is asked to."""

import asyncio
import os
import signal
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import httpx
import pytest

from tests.component.api.conftest import SERVICES
from tests.component.api.lines import watching
from tests.conftest import free_port
from tests.waiting import eventually

ROOT = Path(__file__).parents[3]
pytestmark = pytest.mark.redis


@asynccontextmanager
async def process(redis_url: str, port: int, folder: Path) -> AsyncIterator[asyncio.subprocess.Process]:
    """`python -m api`; killed at the end if it still runs."""
    environment = {
        **os.environ,
        "PYTHONPATH": f"{ROOT / 'platform'}{os.pathsep}{ROOT}",
        "KNOLL_REDIS_URL": redis_url,
        "KNOLL_API_PORT": str(port),
        "KNOLL_UPLOADS_DIR": str(folder / "uploads"),
    }
    started = await asyncio.create_subprocess_exec(
        sys.executable, "-m", "api", env=environment, stdout=asyncio.subprocess.PIPE
    )
    try:
        yield started
    finally:
        if started.returncode is None:
            started.kill()
            await started.wait()


async def ready(client: httpx.AsyncClient) -> bool:
    try:
        return (await client.get("/readyz")).status_code == 200
    except httpx.ConnectError:
        return False


async def test_it_serves_reconciles_and_ends_its_watches_on_sigterm(redis_url: str, tmp_path: Path) -> None:
    port = free_port()
    async with (
        process(redis_url, port, tmp_path) as running,
        httpx.AsyncClient(base_url=f"http://127.0.0.1:{port}", timeout=30) as client,
    ):
        await eventually(lambda: ready(client), within=30, condition="the API")

        async def seeded() -> bool:
            return (
                await client.get("/api/v1/namespaces/istio-system/services/istio-ingressgateway")
            ).status_code == 200

        await eventually(seeded, condition="the first objects")
        manifest = {
            "apiVersion": "serving.knative.dev/v1",
            "kind": "Service",
            "metadata": {"name": "hello"},
            "spec": {"template": {"spec": {"containers": [{"image": "registry.example/hello:v1"}]}}},
        }
        async with watching(client, SERVICES) as lines:
            assert (await client.post(SERVICES, json=manifest)).status_code == 201
            assert (await lines.next())["type"] == "ADDED"
            changed = await lines.next()
            assert changed["type"] == "MODIFIED"
            assert changed["object"]["status"]["observedGeneration"] == 1
            running.send_signal(signal.SIGTERM)
            await lines.rest()
        assert await asyncio.wait_for(running.wait(), 20) == 0


async def test_it_reports_a_port_in_use(redis_url: str, tmp_path: Path) -> None:
    server = await asyncio.start_server(lambda r, w: None, "127.0.0.1", 0)
    port = server.sockets[0].getsockname()[1]
    async with process(redis_url, port, tmp_path) as running:
        out, _ = await asyncio.wait_for(running.communicate(), 30)
        assert running.returncode == 1
        assert f"cannot listen on 127.0.0.1:{port}" in out.decode()
    server.close()
    await server.wait_closed()
