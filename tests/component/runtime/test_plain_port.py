"""Containers of the engine are not administrators on the API's plain port, whatever network and user they have."""

import asyncio
import os
from collections.abc import AsyncIterator

import httpx
import pytest

from api.app import create_app
from api.auth.access import TrustedPort
from api.http import server
from api.http.connections import Connections
from api.http.peers import Peers
from knoll.process.settings import ApiSettings
from tests.component.runtime.harness import docker_runs
from tests.conftest import need
from tests.doubles.memory_store import MemoryStore
from tests.waiting import eventually

pytestmark = pytest.mark.docker

IMAGE = "python:3.13-slim"
ASK = """
import sys, urllib.request, urllib.error
try:
    print(urllib.request.urlopen(sys.argv[1], timeout=10).status)
except urllib.error.HTTPError as error:
    print(error.code, error.read().decode())
"""


@pytest.fixture
async def secrets() -> AsyncIterator[str]:
    """The address of the Secrets of a namespace, on the plain port."""
    app = TrustedPort(create_app(MemoryStore(), ApiSettings()), Peers())
    listener = server.server(app, Connections(100, lambda: 100), host="127.0.0.1")
    work = asyncio.create_task(listener.serve())
    await eventually(lambda: listener.started or work.done(), condition="the API")
    port = listener.servers[0].sockets[0].getsockname()[1]
    yield f"http://127.0.0.1:{port}/api/v1/namespaces/default/secrets"
    listener.should_exit = True
    await work


async def ask(url: str, *options: str) -> str:
    """Return what a container receives."""
    need("DOCKER", await asyncio.to_thread(docker_runs))
    process = await asyncio.create_subprocess_exec(
        "docker", "run", "--rm", *options, IMAGE, "python3", "-c", ASK, url,
        stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.STDOUT,
    )  # fmt: skip
    out, _ = await asyncio.wait_for(process.communicate(), 60)
    return out.decode()


@pytest.mark.parametrize("user", ["0", "65534"])
async def test_a_container_on_the_machine_s_network_needs_a_token(secrets: str, user: str) -> None:
    answer = await ask(secrets, "--network", "host", "--user", user)
    assert answer.startswith("401 ")
    async with httpx.AsyncClient() as client:
        assert (await client.get(secrets)).status_code == 200


@pytest.mark.skipif(os.geteuid() != 0, reason="an API that is not root's sees no process of root's")
async def test_only_with_the_machine_s_processes_too_it_is_root_here(secrets: str) -> None:
    """The test above is refused because of its body: such a container is root on the machine in any case."""
    assert (await ask(secrets, "--network", "host", "--pid", "host")).strip() == "200"
