"""Clients of the other machines' services, when the certificate is renewed."""

from pathlib import Path

import pytest

from knoll.cluster.other_machines import OtherMachines
from knoll.messages.nodes import NODES, Node
from knoll.redis.client import connected
from knoll.tables.redis_tables import RedisTable
from tests.component.cluster.certified import authority, machine


@pytest.mark.redis
async def test_a_renewal_leaves_one_previous_client_open(redis_url: str, tmp_path: Path) -> None:
    issuer = authority()
    folder = machine(issuer, "n1", tmp_path / "1").path
    async with connected(redis_url, "test") as redis:
        await RedisTable(redis, NODES, Node).put("n2", Node("n2", "127.0.0.1", 1, 1, 1.0, 1, "v1"))
        others = OtherMachines(redis, "n1", folder)
        clients = []
        for _ in range(3):
            service = await others.of("n2")
            assert service is not None
            clients.append(service.client)
            machine(issuer, "n1", folder)
        assert [client.is_closed for client in clients] == [True, False, False]
        await others.close()
    assert all(client.is_closed for client in clients)
