"""Three managers with real Redis servers and sentinels: agents, a forwarder, keepers; and a client that loses nothing.

All machines are this one. Servers and sentinels know each other by the forwarder's address, as on a real machine.
"""

import asyncio
import contextlib
import itertools
import os
import shutil
import signal
import subprocess
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from knoll.auth import key_files
from knoll.cluster.agent import Agent
from knoll.cluster.forwarder import Egress, Remote
from knoll.cluster.managers import Manager
from knoll.cluster.node_folder import protocol
from knoll.cluster.redis_forwarder import RedisForwarder
from knoll.cluster.redis_group import Step
from knoll.cluster.redis_keeper import RedisKeeper
from knoll.process.settings import AgentSettings, CommonSettings
from knoll.redis.client import RedisClient, connected
from knoll.store.redis_store import RedisStore
from knoll.values.errors import StoreUnavailableError
from tests.component.cluster.certified import authority, machine
from tests.conftest import free_port, need
from tests.waiting import eventually

pytestmark = pytest.mark.redis

FORWARDER = "127.0.3.1"
CM = "configmaps"


class Lab:
    """Three managers and the forwarder of a fourth machine."""

    def __init__(self, folder: Path) -> None:
        self.folder, self.port = folder, free_port()
        self.keys = folder / "keys"
        key_files.prepare_member(self.keys)
        self._issuer = authority()
        self.managers = [Manager(slot, f"n{slot}", f"127.0.4.{slot}") for slot in (1, 2, 3)]
        self.servers: dict[int, subprocess.Popen[bytes]] = {}
        self.sentinels: dict[int, subprocess.Popen[bytes]] = {}
        self.places = {slot: (free_port(), free_port()) for slot in (1, 2, 3)}
        self.tasks: list[asyncio.Task[None]] = []
        self.agents: list[Agent] = []
        self.worker = machine(self._issuer, "n9", folder / "n9")
        self.nodes = {each.slot: machine(self._issuer, each.name, folder / each.name) for each in self.managers}

    def list_managers(self, count: int) -> None:
        for node in (self.worker, *self.nodes.values()):
            node.keep_managers(self.managers[:count])

    def settings(self, slot: int) -> AgentSettings:
        redis, sentinel = self.places[slot]
        manager = self.managers[slot - 1]
        return AgentSettings(
            node=manager.name,
            node_dir=self.folder / manager.name,
            keys_dir=self.keys / "redis",
            agent_host=manager.address,
            agent_port=self.port,
            agent_services=f"redis=127.0.0.1:{redis},sentinel=127.0.0.1:{sentinel},logs=127.0.0.1:{redis}",
            agent_first_manager="n1/127.0.4.1",
        )

    def start_forwarder(self) -> None:
        settings = AgentSettings(
            node="n9",
            node_dir=self.folder / "n9",
            agent_host=FORWARDER,
            agent_port=self.port,
            agent_first_manager="n1/127.0.4.1",
        )
        self.tasks.append(asyncio.create_task(RedisForwarder(settings).run()))

    def start(self, slot: int) -> None:
        """Start agent, server and sentinel of a manager; the first one is the primary."""
        agent = Agent(self.settings(slot))
        self.agents.append(agent)
        agent.members = frozenset({"n9", *(manager.name for manager in self.managers)})
        self.tasks.append(asyncio.create_task(agent.run()))
        self.start_server(slot)
        folder, (_, port) = self.folder / f"sentinel-{slot}", self.places[slot]
        folder.mkdir()
        (folder / "sentinel.conf").write_text(
            f"port {port}\nbind 127.0.0.1\ndir {folder}\naclfile {self.keys}/redis/sentinels.acl\n"
            f"logfile {folder}/log\nsentinel announce-ip {FORWARDER}\nsentinel announce-port {26380 + slot}\n"
            f"sentinel monitor knoll {FORWARDER} 6381 99\nsentinel down-after-milliseconds knoll 1500\n"
            f"sentinel failover-timeout knoll 10000\n{(self.keys / 'redis/sentinel.conf').read_text()}"
        )
        command = ["redis-server", str(folder / "sentinel.conf"), "--sentinel"]
        self.sentinels[slot] = subprocess.Popen(command, stdout=subprocess.DEVNULL)

    def start_server(self, slot: int) -> None:
        folder, (port, _) = self.folder / f"redis-{slot}", self.places[slot]
        if not folder.exists():
            folder.mkdir()
            (folder / "redis.conf").write_text(
                f"port {port}\nbind 127.0.0.1\ndir {folder}\nlogfile {folder}/log\nreplica-announce-ip {FORWARDER}\n"
                f"replica-announce-port {6380 + slot}\nappendonly yes\nappendfsync always\nsave ''\n"
                f"min-replicas-max-lag 5\nrepl-diskless-sync-delay 0\nmin-replicas-to-write {int(slot > 1)}\n"
                f"aclfile {self.keys}/redis/users.acl\n{(self.keys / 'redis/server.conf').read_text()}"
                + (f"replicaof {FORWARDER} 6381\n" if slot > 1 else "")
            )
        command = ["redis-server", str(folder / "redis.conf")]
        self.servers[slot] = subprocess.Popen(command, stdout=subprocess.DEVNULL)

    def kill(self, slot: int) -> None:
        for processes in (self.servers, self.sentinels):
            os.kill(processes[slot].pid, signal.SIGKILL)
            processes[slot].wait(10)

    async def listens(self) -> bool:
        """Return whether the first agent accepts connections."""
        try:
            _, writer = await asyncio.open_connection("127.0.4.1", self.port)
        except OSError:
            return False
        writer.close()
        return True

    def ask(self, port: int, *command: str) -> str:
        """Return the reply of a server or a sentinel."""
        password = key_files.group_password(self.keys / "redis", "sentinel")
        login = ["redis-cli", "-p", str(port), "--user", "sentinel", "--pass", password]
        return subprocess.run([*login, *command], capture_output=True, text=True, timeout=10).stdout

    def primary(self, slot: int) -> int:
        """Return the port of the primary that a sentinel names."""
        return int(self.ask(self.places[slot][1], "sentinel", "get-master-addr-by-name", "knoll").split()[1])

    def is_complete(self, slot: int) -> bool:
        """Return whether a sentinel knows the others, and the replicas, for which it asks every ten seconds."""
        fields = self.ask(self.places[slot][1], "sentinel", "master", "knoll").split("\n")
        return all(fields[fields.index(name) + 1] == "2" for name in ("num-other-sentinels", "num-slaves"))

    def keeper(self, slot: int) -> RedisKeeper:
        return RedisKeeper(self.settings(slot), FORWARDER)

    async def done(self, slot: int) -> list[Step] | None:
        """Let a keeper check once; None while its servers do not respond."""
        try:
            return await self.keeper(slot).check()
        except (StoreUnavailableError, OSError):
            return None

    @contextlib.asynccontextmanager
    async def client(self) -> AsyncIterator[RedisClient]:
        url = f"redis://api@{FORWARDER}:6379/0?replicas=auto"
        settings = CommonSettings(redis_url=url, keys_dir=self.keys / "api").logged_in()
        async with connected(settings.redis_url, "test") as redis:
            yield redis

    async def close(self) -> None:
        for task in self.tasks:
            task.cancel()
        await asyncio.gather(*self.tasks, return_exceptions=True)
        for process in (*self.servers.values(), *self.sentinels.values()):
            process.kill()
            process.wait(10)


@pytest.fixture
async def lab(tmp_path: Path) -> AsyncIterator[Lab]:
    need("REDIS", shutil.which("redis-server") is not None)
    made = Lab(tmp_path)
    try:
        yield made
    finally:
        await made.close()


def body(name: str) -> dict[str, object]:
    return {"metadata": {"namespace": "a", "name": name, "uid": name}, "data": {}}


async def test_a_single_redis_becomes_a_group_which_loses_nothing(lab: Lab) -> None:
    numbers = itertools.count()
    written: list[str] = []
    lab.list_managers(1)
    lab.start(1)
    lab.start_forwarder()
    async with lab.client() as redis:
        store = RedisStore(redis)

        async def write() -> bool:
            name = f"o{next(numbers)}"
            try:
                await store.create(CM, body(name))
            except StoreUnavailableError:
                return False
            written.append(name)
            return True

        async def write_all_the_time() -> None:
            while True:
                if not await write():
                    await asyncio.sleep(0.02)

        async def done(slot: int, expected: list[Step]) -> bool:
            return await lab.done(slot) == expected

        # One manager: the forwarder finds its Redis by its sentinel, and a write waits for no replica.
        await eventually(write, within=30)
        assert await lab.done(1) == []
        # The others join, while a client writes.
        writing = asyncio.create_task(write_all_the_time())
        lab.list_managers(3)
        lab.start(2)
        lab.start(3)
        await eventually(lambda: done(1, [Step.REQUIRE_REPLICA]), within=60)
        for slot in (1, 2, 3):
            await eventually(lambda slot=slot: done(slot, [Step.SET_QUORUM]), within=30)  # type: ignore[misc]
            assert await lab.done(slot) == []
        await eventually(write, within=30)
        await eventually(lambda: all(lab.is_complete(slot) for slot in (1, 2, 3)), within=60)
        # The first machine is lost for good.
        lab.kill(1)
        at_loss = len(written)
        await eventually(lambda: lab.primary(2) != 6381, within=60)
        await eventually(lambda: _more(written, at_loss), within=60)
        # It returns with its data, and as a replica.
        lab.start_server(1)
        await eventually(lambda: _is_replica(lab, 1), within=60)
        await eventually(write, within=30)
        writing.cancel()
        await asyncio.gather(writing, return_exceptions=True)
        stored = {each["metadata"]["name"] for each in (await store.list(CM)).items}
        assert set(written) <= stored


async def _more(written: list[str], count: int) -> bool:
    return len(written) > count


async def _is_replica(lab: Lab, slot: int) -> bool:
    info = await asyncio.to_thread(lab.ask, lab.places[slot][0], "info", "replication")
    return "role:slave" in info and "master_link_status:up" in info


@pytest.mark.parametrize(
    ("name", "service", "accepted"),
    [("n2", "sentinel", True), ("n2", "logs", False), ("n9", "sentinel", False)],
    ids=["a manager, to a sentinel", "a manager, elsewhere", "a worker"],
)
async def test_managers_reach_redis_before_the_members_are_known(
    lab: Lab, name: str, service: str, accepted: bool
) -> None:
    lab.list_managers(3)
    lab.start(1)
    lab.agents[0].members = frozenset()  # as after a start, before the API responds, which needs Redis
    folder = lab.worker if name == "n9" else lab.nodes[2]
    egress = Egress(folder, Remote("n1", "127.0.4.1", lab.port, protocol(service)))

    async def answered() -> bool:
        with contextlib.suppress(OSError):
            reader, writer = await egress.connect()
            writer.write(b"PING\r\n")
            answer = await reader.read(100)
            writer.close()
            return bool(answer)
        return False

    await eventually(lambda: lab.listens(), within=30)
    if accepted:
        await eventually(answered, within=30)
    else:
        assert not await answered()
