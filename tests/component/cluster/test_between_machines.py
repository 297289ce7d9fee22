"""What processes get from another machine: uploaded sources, and logs of instances."""

import asyncio
import contextlib
import os
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
from knoll.auth import key_files
from knoll.cluster.agent import Agent
from knoll.cluster.node_folder import NodeFolder
from knoll.messages.nodes import NODES, Node
from knoll.process.settings import AgentSettings, ApiSettings, BuilderSettings
from knoll.redis.client import RedisClient
from knoll.store.redis_store import RedisStore
from knoll.tables.redis_tables import RedisTable
from knoll.values import kinds
from knoll.values.errors import SourceError
from tests.component.api import test_machines
from tests.component.api.conftest import Running, serving
from tests.component.cluster.test_agent import running, secure
from tests.component.cluster.test_forwarder import port_of
from tests.conftest import free_port
from tests.waiting import eventually

pytestmark = pytest.mark.redis


@dataclass
class Site:
    """n1 with an API and an agent; n2 with a certificate and folders of its own."""

    api: Running
    redis: RedisClient
    second: NodeFolder
    folder: Path

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
    async with serving(store, settings, redis) as api, secure(api, redis) as url, log_service() as logs:
        await test_machines.joined(api, first, "n1")
        await test_machines.joined(api, second, "n2")
        port, plain = free_port(), api.url.rpartition(":")[2]
        agent = Agent(
            AgentSettings(
                node_dir=first.path,
                agent_api_url=url,
                agent_port=port,
                agent_services=f"api=127.0.0.1:{plain},logs=127.0.0.1:{logs}",
            )
        )
        table = RedisTable(redis, NODES, Node)
        await table.put("n1", Node("n1", "127.0.0.1", 0, port, 1.0, 1, "v1"))
        async with running(agent):
            await eventually(lambda: "n2" in agent.members, condition="the members")
            yield Site(api, redis, second, tmp_path)
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
