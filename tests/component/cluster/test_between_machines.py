"""What processes get from another machine: uploaded sources, and logs of instances."""

import asyncio
import contextlib
import os
import shutil
import socket
import subprocess
from collections.abc import AsyncIterator
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

import pytest

from api import authority
from api.controllers.reconciler import objects
from api.http.metrics import ApiMetrics
from api.resource.uploads import Uploads
from builder.build import uploads
from builder.images import other_engines
from builder.images.other_engines import OtherEngines
from knoll.auth import key_files
from knoll.cluster.agent import Agent
from knoll.cluster.node_folder import NodeFolder
from knoll.messages.nodes import NODES, Node
from knoll.process import admin
from knoll.process.settings import AgentSettings, ApiSettings, BuilderSettings
from knoll.redis.client import RedisClient
from knoll.store.redis_store import RedisStore
from knoll.tables.redis_tables import RedisTable
from knoll.values import kinds
from knoll.values.errors import RuntimeUnavailableError, SourceError
from tests.component.api import test_machines
from tests.component.api.conftest import Running, serving
from tests.component.cluster.test_agent import running, secure
from tests.component.cluster.test_forwarder import port_of
from tests.conftest import free_port, need
from tests.images import image_name, remove_images
from tests.waiting import eventually

pytestmark = pytest.mark.redis


@dataclass
class Site:
    """n1 with an API and an agent; n2 with a certificate and folders of its own."""

    api: Running
    redis: RedisClient
    second: NodeFolder
    folder: Path
    pushed: list[str]
    """Images that the builder of n1 was asked to push."""

    def builder(self, node: str = "n2") -> BuilderSettings:
        return BuilderSettings(
            node=node,
            node_dir=self.second.path,
            keys_dir=self.folder / "keys" / "builder",
            uploads_dir=self.folder / "uploads-2",
        )


@contextlib.asynccontextmanager
async def log_service() -> AsyncIterator[int]:
    """Responds to each request with the head of that request, as a log."""

    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        head = await reader.readuntil(b"\r\n\r\n")
        writer.write(b"HTTP/1.1 200 OK\r\nConnection: close\r\nContent-Length: %d\r\n\r\n%b" % (len(head), head))
        await writer.drain()
        writer.close()

    async with await asyncio.start_server(answer, "127.0.0.1") as server:
        yield port_of(server)


@contextlib.asynccontextmanager
async def builder_service(settings: BuilderSettings, pushed: list[str]) -> AsyncIterator[int]:
    """What the builder of a machine serves to the others."""

    async def push(image_id: str) -> None:
        if image_id == "sha256:unknown":
            raise RuntimeUnavailableError("no such image")
        pushed.append(image_id)

    async def ready() -> str:
        return ""

    stop = asyncio.Event()
    with socket.create_server(("127.0.0.1", 0)) as listener:
        app = admin.app(ready, other_engines.routes(settings, push))
        serving_task = asyncio.create_task(admin.serve(app, "", 0, stop, listener=listener))
        yield int(listener.getsockname()[1])
        stop.set()
        await serving_task


@pytest.fixture
async def site(redis: RedisClient, tmp_path: Path) -> AsyncIterator[Site]:
    key_files.prepare(tmp_path / "keys")
    first, second = NodeFolder(tmp_path / "1"), NodeFolder(tmp_path / "2")
    settings = ApiSettings(
        uploads_dir=tmp_path / "uploads",
        keys_dir=tmp_path / "keys" / "api",
        state_dir=tmp_path / "state",
        node="n2",
        node_dir=second.path,
    )
    store = RedisStore(redis, keyring=settings.keyring)
    await authority.synchronise(store, settings.state_dir, datetime.now(UTC))
    pushed: list[str] = []
    builder = BuilderSettings(node="n1", node_dir=first.path, keys_dir=tmp_path / "keys" / "builder")
    async with (
        serving(store, settings, redis) as api,
        secure(api, redis) as url,
        log_service() as logs,
        builder_service(builder, pushed) as images,
    ):
        await test_machines.joined(api, first, "n1")
        await test_machines.joined(api, second, "n2")
        port, plain = free_port(), api.url.rpartition(":")[2]
        agent = Agent(
            AgentSettings(
                node_dir=first.path,
                agent_api_url=url,
                agent_port=port,
                agent_services=f"api=127.0.0.1:{plain},logs=127.0.0.1:{logs},builder=127.0.0.1:{images}",
            )
        )
        table = RedisTable(redis, NODES, Node)
        await table.put("n1", Node("n1", "127.0.0.1", 0, port, 1.0, 1, "v1"))
        async with running(agent):
            await eventually(lambda: "n2" in agent.members, condition="the members")
            yield Site(api, redis, second, tmp_path, pushed)
    await store.close()


async def test_a_builder_fetches_a_source_that_another_machine_has(site: Site) -> None:
    content = bytes(range(256)) * 20_000
    sent = (await site.api.client.post("/namespaces/default/uploads", content=content)).json()["id"]
    settings, spec = site.builder(), {"upload": {"id": sent}}
    path = await uploads.archive(settings, site.redis, "default", spec)
    assert path == settings.uploads_dir / "default" / sent
    assert path.read_bytes() == content
    assert [each.name for each in path.parent.iterdir()] == [sent]
    # It is kept: the second time no machine is asked.
    await RedisTable(site.redis, NODES, Node).remove("n1")
    assert await uploads.archive(settings, site.redis, "default", spec) == path


async def test_a_source_of_another_namespace_is_not_fetched(site: Site) -> None:
    sent = (await site.api.client.post("/namespaces/default/uploads", content=b"x" * 99)).json()["id"]
    with pytest.raises(SourceError, match="does not exist"):
        await uploads.archive(site.builder(), site.redis, "kube-public", {"upload": {"id": sent}})


async def test_a_source_with_another_content_than_its_name_is_refused(site: Site) -> None:
    sent = (await site.api.client.post("/namespaces/default/uploads", content=b"x" * 99)).json()["id"]
    (site.api.settings.uploads_dir / "default" / sent).write_bytes(b"y" * 99)
    with pytest.raises(SourceError, match="does not exist"):
        await uploads.archive(site.builder(), site.redis, "default", {"upload": {"id": sent}})
    assert not list((site.folder / "uploads-2" / "default").iterdir())


async def test_a_builder_with_other_keys_gets_no_source(site: Site, tmp_path: Path) -> None:
    sent = (await site.api.client.post("/namespaces/default/uploads", content=b"x" * 99)).json()["id"]
    key_files.prepare(tmp_path / "other")
    settings = BuilderSettings(
        node="n2",
        node_dir=site.second.path,
        keys_dir=tmp_path / "other" / "builder",
        uploads_dir=tmp_path / "uploads-3",
    )
    with pytest.raises(SourceError, match="does not exist"):
        await uploads.archive(settings, site.redis, "default", {"upload": {"id": sent}})


async def test_a_single_machine_asks_no_other(redis: RedisClient, tmp_path: Path) -> None:
    settings = BuilderSettings(uploads_dir=tmp_path)
    await RedisTable(redis, NODES, Node).put("n1", Node("n1", "127.0.0.1", 0, 1, 1.0, 1, "v1"))
    with pytest.raises(SourceError, match="does not exist"):
        await uploads.archive(settings, redis, "default", {"upload": {"id": f"sha256-{'0' * 64}"}})
    with pytest.raises(SourceError, match="is missing"):
        await uploads.archive(settings, redis, "default", {})


@pytest.mark.docker
async def test_a_builder_asks_which_images_another_engine_has_and_lets_it_push_them(site: Site) -> None:
    need("DOCKER", shutil.which("docker") is not None)
    name = image_name("between")
    image_id = empty_image(name)
    others = OtherEngines(site.builder(), site.redis)
    try:
        asked = [name, f"any@{image_id}", "no.example/absent:1", "NOT A NAME"]
        images = (await others.images(asked)).by_reference
        assert images.keys() == {name, f"any@{image_id}"}
        for image in (*images[name], *images[f"any@{image_id}"]):
            assert (image.id, image.node, image.repo_digests) == (image_id, "n1", ())
        assert images[name][0].tagged > 1_700_000_000
        await others.push("n1", image_id)
        assert site.pushed == [image_id]
        with pytest.raises(RuntimeUnavailableError, match="n1 cannot push sha256:unknown: no such image"):
            await others.push("n1", "sha256:unknown")
        with pytest.raises(RuntimeUnavailableError, match='the node "n9" does not respond'):
            await others.push("n9", image_id)
    finally:
        await others.close()
        remove_images(name)


def empty_image(name: str) -> str:
    """Make an image; returns its id."""
    archive = bytes(10240)
    made = subprocess.run(["docker", "import", "-", name], input=archive, capture_output=True, check=True)
    return made.stdout.decode().strip()


async def test_a_builder_with_other_keys_gets_no_images(site: Site, tmp_path: Path) -> None:
    key_files.prepare(tmp_path / "other")
    settings = BuilderSettings(node="n2", node_dir=site.second.path, keys_dir=tmp_path / "other" / "builder")
    others = OtherEngines(settings, site.redis)
    assert (await others.images(["shop:1"])).silent == ("n1",)
    with pytest.raises(RuntimeUnavailableError, match="Unauthorized"):
        await others.push("n1", f"sha256:{'a' * 64}")
    assert not site.pushed
    await others.close()


async def pod(site: Site, name: str, node: str) -> None:
    body = {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {"name": name, "namespace": "default"},
        "spec": {"nodeName": node, "containers": [{"name": "user-container", "image": "i"}]},
    }
    await site.api.store.create(kinds.POD.id, objects.with_identity(body, 0.0))


async def test_the_log_of_an_instance_comes_from_its_machine(site: Site) -> None:
    await pod(site, "p1", "n1")
    answer = await site.api.client.get("/api/v1/namespaces/default/pods/p1/log?tailLines=3")
    assert answer.status_code == 200
    head = answer.text.splitlines()
    assert head[0] == "GET /namespaces/default/pods/p1/log?tailLines=3 HTTP/1.1"
    assert any(line.lower().startswith("authorization: bearer ") for line in head)


async def test_the_log_of_a_machine_that_is_away_is_not_available(site: Site) -> None:
    await pod(site, "p9", "n9")
    answer = await site.api.client.get("/api/v1/namespaces/default/pods/p9/log")
    assert answer.status_code == 503
    assert 'the node "n9" does not respond' in answer.json()["message"]


def test_the_part_of_an_upload_has_the_suffix_that_the_api_clears_away(tmp_path: Path) -> None:
    (tmp_path / "default").mkdir()
    left = tmp_path / "default" / "left.part"
    left.touch()
    os.utime(left, (0, 0))
    Uploads(tmp_path, 1, ApiMetrics()).prepare()
    assert not left.exists()
