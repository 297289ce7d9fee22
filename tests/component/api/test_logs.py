"""Logs of instances: passed on from the autoscaler as they arrive."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest
import uvicorn
from msgspec.structs import replace
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import PlainTextResponse, Response, StreamingResponse
from starlette.routing import Route

from knoll.process.admin import QuietServer
from knoll.process.settings import ApiSettings
from tests.component.api.conftest import serving
from tests.conftest import free_port
from tests.doubles.memory_store import MemoryStore
from tests.waiting import eventually

LOG = "/api/v1/namespaces/default/pods/hello-1/log"


class Autoscaler:
    """Stands in for the autoscaler's HTTP port."""

    def __init__(self) -> None:
        self.asked: list[str] = []
        self.more = asyncio.Event()

    async def log(self, request: Request) -> Response:
        self.asked.append(str(request.url).partition(str(request.base_url))[2])
        if request.query_params.get("container") == "unknown":
            return PlainTextResponse("container unknown is not valid for pod hello-1", 400)

        async def lines() -> AsyncIterator[str]:
            yield "first\n"
            if request.query_params.get("follow") == "true":
                await self.more.wait()
                yield "second\n"

        return StreamingResponse(lines(), media_type="text/plain")


@asynccontextmanager
async def autoscaler(port: int) -> AsyncIterator[Autoscaler]:
    stand_in = Autoscaler()
    app = Starlette(routes=[Route("/namespaces/{namespace}/pods/{name}/log", stand_in.log)])
    server = QuietServer(uvicorn.Config(app, host="127.0.0.1", port=port, log_config=None))
    work = asyncio.create_task(server.serve())
    await eventually(lambda: server.started)
    yield stand_in
    server.should_exit = True
    await work


@pytest.fixture
async def store() -> MemoryStore:
    store = MemoryStore()
    await store.create(
        "pods", {"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "hello-1", "namespace": "default", "uid": "u"}}
    )
    return store


async def test_a_log_comes_through_with_its_parameters(store: MemoryStore, settings: ApiSettings) -> None:
    port = free_port()
    wired = replace(settings, autoscaler_url=f"http://127.0.0.1:{port}")
    async with autoscaler(port) as stand_in, serving(store, wired) as api:
        answer = await api.client.get(LOG, params={"container": "user-container", "tailLines": "5"})
        assert answer.text == "first\n"
        assert answer.headers["content-type"].startswith("text/plain")
        assert stand_in.asked == ["namespaces/default/pods/hello-1/log?container=user-container&tailLines=5"]
        async with api.client.stream("GET", LOG, params={"follow": "true"}) as followed:
            lines = followed.aiter_lines()
            assert await anext(lines) == "first"
            stand_in.more.set()
            assert await anext(lines) == "second"
        refused = await api.client.get(LOG, params={"container": "unknown"})
        assert refused.status_code == 400
        assert "container unknown is not valid" in refused.json()["message"]
        missing = await api.client.get(LOG.replace("hello-1", "hello-2"))
        assert missing.status_code == 404
        assert missing.json()["message"] == 'pods "hello-2" not found'


async def test_without_an_autoscaler_the_response_names_the_cause(store: MemoryStore, settings: ApiSettings) -> None:
    wired = replace(settings, autoscaler_url=f"http://127.0.0.1:{free_port()}")
    async with serving(store, wired) as api:
        answer = await api.client.get(LOG)
        assert answer.status_code == 503
        assert "cannot be read at the moment" in answer.json()["message"]
        assert answer.headers["retry-after"] == "1"
