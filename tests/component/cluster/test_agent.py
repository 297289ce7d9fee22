"""The agent against a real API: it admits members only, and renews the certificate of its machine."""

import asyncio
import contextlib
import shutil
from collections.abc import AsyncIterator
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from cryptography import x509
from structlog.testing import capture_logs

from api.app import create_app
from api.http import own_certificate, server
from api.http.connections import Connections
from api.resource import bootstrap
from knoll.auth import certificates
from knoll.cluster.agent import Agent
from knoll.cluster.forwarder import Egress, Remote
from knoll.cluster.node_folder import NodeFolder, protocol
from knoll.process.settings import AgentSettings
from knoll.redis.client import RedisClient
from knoll.values.kinds import SERVICE_ACCOUNT
from tests.component.api import test_machines
from tests.component.api.conftest import Running
from tests.component.cluster.certified import machine
from tests.component.cluster.test_forwarder import echo
from tests.conftest import free_port
from tests.waiting import eventually

pytestmark = pytest.mark.redis


@contextlib.asynccontextmanager
async def secure(api: Running, redis: RedisClient) -> AsyncIterator[str]:
    """URL of the same API over HTTPS."""
    settings = api.settings
    files, _ = own_certificate.load_or_issue(settings.state_dir, settings.tls_names, datetime.now(UTC))
    app = create_app(api.store, settings, redis=redis)
    connections = Connections(64, lambda: 64)
    listener = server.server(app, connections, host="127.0.0.1", files=files)
    work = asyncio.create_task(listener.serve())
    await eventually(lambda: listener.started or work.done(), condition="the API")
    try:
        yield f"https://127.0.0.1:{listener.servers[0].sockets[0].getsockname()[1]}"
    finally:
        listener.should_exit = True
        await work


@contextlib.asynccontextmanager
async def running(agent: Agent) -> AsyncIterator[None]:
    work = asyncio.create_task(agent.run())
    try:
        yield
    finally:
        work.cancel()
        await asyncio.gather(work, return_exceptions=True)


async def answered(egress: Egress) -> bool:
    """Whether the service behind the agent answers."""
    try:
        reader, writer = await egress.connect()
    except OSError:
        return False
    try:
        return await reader.read(5) == b"echo:"
    except OSError:
        return False
    finally:
        writer.transport.abort()


async def test_members_reach_the_services_until_they_are_removed(
    api: Running, redis: RedisClient, tmp_path: Path
) -> None:
    first, second = NodeFolder(tmp_path / "1"), NodeFolder(tmp_path / "2")
    await test_machines.joined(api, first, "n1")
    async with secure(api, redis) as url, echo() as service:
        port = free_port()
        settings = AgentSettings(
            node_dir=first.path,
            agent_api_url=url,
            agent_port=port,
            agent_services=f"redis=127.0.0.1:{service}",
        )
        async with running(Agent(settings)):
            await test_machines.joined(api, second, "n2")
            egress = Egress(second, Remote("n1", "127.0.0.1", port, protocol("redis")))

            async def lets_in() -> bool:
                return await answered(egress)

            async def refuses() -> bool:
                return not await answered(egress)

            await eventually(lets_in, condition="the new member")
            await api.store.delete(SERVICE_ACCOUNT.id, bootstrap.CREDENTIALS_NAMESPACE, "node-n2")
            await eventually(refuses, condition="the removed member")


async def test_a_service_of_another_machine_is_a_port_of_this_one(
    api: Running, redis: RedisClient, tmp_path: Path
) -> None:
    first, second = NodeFolder(tmp_path / "1"), NodeFolder(tmp_path / "2")
    await test_machines.joined(api, first, "n1")
    await test_machines.joined(api, second, "n2")
    async with secure(api, redis) as url, echo() as service:
        port, local = free_port(), free_port()
        offering = AgentSettings(
            node_dir=first.path, agent_api_url=url, agent_port=port, agent_services=f"redis=127.0.0.1:{service}"
        )
        using = AgentSettings(
            node_dir=second.path,
            agent_api_url=url,
            agent_forwards=f"127.0.0.1:{local}=redis@n1/127.0.0.1:{port}",
        )
        async with running(Agent(offering)), running(Agent(using)):

            async def answers() -> bool:
                try:
                    reader, writer = await asyncio.open_connection("127.0.0.1", local)
                except OSError:
                    return False
                try:
                    return await reader.read(5) == b"echo:"
                except OSError:
                    return False
                finally:
                    writer.transport.abort()

            await eventually(answers, condition="the service of the other machine")


async def test_a_certificate_is_renewed_before_it_expires(api: Running, redis: RedisClient, tmp_path: Path) -> None:
    folder = NodeFolder(tmp_path / "1")
    await test_machines.joined(api, folder, "n1")
    issuer = own_certificate.load_authority(api.settings.state_dir)
    assert issuer is not None
    old = datetime.now(UTC) - timedelta(days=15)
    aged = certificates.issue_node(issuer, "n1", folder.request("n1"), old)
    folder.keep(issuer.certificate_pem, aged, folder.token)
    assert not folder.is_valid(datetime.now(UTC))
    key = (folder.path / "node.key.pem").read_bytes()
    async with secure(api, redis) as url:
        settings = AgentSettings(
            node_dir=folder.path, agent_api_url=url, agent_port=free_port(), agent_services="redis=127.0.0.1:1"
        )
        agent = Agent(settings)
        async with running(agent):
            await eventually(lambda: folder.is_valid(datetime.now(UTC)), condition="a new certificate")
        assert (folder.path / "node.key.pem").read_bytes() == key
        renewed = x509.load_pem_x509_certificate((folder.path / "node.pem").read_bytes())
        assert certificates.node_name(renewed) == "n1"


async def test_an_agent_whose_api_is_away_refuses_all_machines(tmp_path: Path) -> None:
    issuer = certificates.new_authority(datetime.now(UTC))
    folder = NodeFolder(tmp_path / "1")
    folder.keep(
        issuer.certificate_pem,
        certificates.issue_node(issuer, "n1", folder.request("n1"), datetime.now(UTC)),
        "a token",
    )
    port = free_port()
    settings = AgentSettings(
        node_dir=folder.path,
        agent_api_url=f"https://127.0.0.1:{free_port()}",
        agent_port=port,
        agent_services="redis=127.0.0.1:1",
    )
    async with running(Agent(settings)):
        egress = Egress(folder, Remote("n1", "127.0.0.1", port, protocol("redis")))

        async def refused() -> bool:
            try:
                reader, writer = await egress.connect()
            except OSError:
                return False  # it does not listen yet
            try:
                return await reader.read() == b""
            except OSError:
                return True
            finally:
                writer.transport.abort()

        await eventually(refused, condition="a refusal")


async def test_a_certificate_that_cannot_be_read_does_not_end_the_agent(tmp_path: Path) -> None:
    folder = machine(certificates.new_authority(datetime.now(UTC)), "n1", tmp_path / "1")
    settings = AgentSettings(
        node_dir=folder.path,
        agent_api_url=f"https://127.0.0.1:{free_port()}",
        agent_port=free_port(),
        agent_services="redis=127.0.0.1:1",
    )
    agent = Agent(settings)
    # A folder instead of a file: also root cannot read it.
    certificate = folder.path / "node.pem"
    certificate.unlink()
    certificate.mkdir()
    with capture_logs() as events:
        work = asyncio.create_task(agent.run())
        try:
            reported = "certificate not renewed"
            await eventually(lambda: work.done() or any(each["event"] == reported for each in events))
            assert not work.done()
        finally:
            work.cancel()
            await asyncio.gather(work, return_exceptions=True)


def test_the_folder_of_a_machine_can_be_moved(tmp_path: Path) -> None:
    issuer = certificates.new_authority(datetime.now(UTC))
    folder = NodeFolder(tmp_path / "1")
    signed = certificates.issue_node(issuer, "n1", folder.request("n1"), datetime.now(UTC))
    folder.keep(issuer.certificate_pem, signed, "a token")
    shutil.move(tmp_path / "1", tmp_path / "2")
    assert (NodeFolder(tmp_path / "2").name, NodeFolder(tmp_path / "2").token) == ("n1", "a token")
    assert {path.stat().st_mode & 0o777 for path in (tmp_path / "2").iterdir()} == {0o600}
