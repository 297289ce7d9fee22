"""Redis for a platform on several machines (`tests/cluster_processes.py`): one server, or one on each machine."""

import asyncio
import subprocess
from collections import Counter
from pathlib import Path
from typing import Any

from knoll.auth import key_files
from tests.machines import Machine, Machines

REDIS_PORT, SENTINEL_PORT = 6379, 26379
PRIMARY = "knoll"
DOWN_AFTER = 1500
"""Milliseconds without a response after which a sentinel considers a server down."""


class OneRedis:
    """One server, on the first machine."""

    def __init__(self, machines: Machines, keys: Path) -> None:
        self._first, self._keys = machines[1], keys

    @property
    def url(self) -> str:
        return f"redis://{self._first.address}:{REDIS_PORT}/0"

    def start(self, machine: Machine) -> None:
        """Start what the machine runs of it, unless it runs."""
        if machine is not self._first or _runs(machine, "redis-server"):
            return
        folder = machine.folder / "redis"
        folder.mkdir(exist_ok=True)
        spawn(
            machine, "redis", "redis-server",
            *("--bind", machine.address, "--port", str(REDIS_PORT), "--dir", str(folder)),
            *("--save", "", "--appendonly", "yes", "--appendfsync", "always", "--hz", "2"),
            *("--aclfile", str(self._keys / key_files.ACL)),
        )  # fmt: skip

    async def is_ready(self) -> bool:
        return True

    async def primary(self) -> str:
        """Return the address of the server."""
        return self._first.address


class ReplicatedRedis:
    """A server and a sentinel on each machine; configured as in docs/how-to/redis-replicas/compose.yaml."""

    def __init__(self, machines: Machines, keys: Path) -> None:
        self._machines, self._folder = machines, keys.parent / "redis-group"
        self._folder.mkdir()
        key_files.write_group(keys, self._folder)
        lines = (self._folder / ".env").read_text().splitlines()
        self._passwords = dict(line.split("=", 1) for line in lines)

    @property
    def url(self) -> str:
        sentinels = ",".join(f"{machine.address}:{SENTINEL_PORT}" for machine in self._machines)
        return f"redis+sentinel://{sentinels}/0?master={PRIMARY}&sentinel_users=yes"

    def start(self, machine: Machine) -> None:
        """Start what the machine runs of it, unless it runs. A promotion changes the configuration of before."""
        if _runs(machine, "redis-server"):
            return
        server, sentinel = machine.folder / "redis", machine.folder / "sentinel"
        if not server.exists():
            server.mkdir()
            sentinel.mkdir()
            (server / "redis.conf").write_text(self._server(machine, server))
            (sentinel / "sentinel.conf").write_text(self._sentinel(machine, sentinel))
        spawn(machine, "redis", "redis-server", str(server / "redis.conf"))
        spawn(machine, "sentinel", "redis-server", str(sentinel / "sentinel.conf"), "--sentinel")

    async def is_ready(self) -> bool:
        """Whether all servers replicate, so that the loss of any is survived."""
        states = set()
        for machine in self._machines:
            lines = await self._ask(machine, "SENTINEL", "MASTER", PRIMARY)
            state = dict(zip(lines[::2], lines[1::2], strict=False))
            states.add((state.get("num-slaves"), state.get("num-other-sentinels"), state.get("flags")))
        others = str(len(self._machines.all) - 1)
        return states == {(others, others, "master")}

    async def primary(self) -> str:
        """Return the address of the primary, according to most sentinels."""
        on = [machine for machine in self._machines if machine.process is not None]
        named = [await self._ask(machine, "SENTINEL", "GET-MASTER-ADDR-BY-NAME", PRIMARY) for machine in on]
        return Counter(lines[0] for lines in named if lines).most_common(1)[0][0]

    async def _ask(self, machine: Machine, *command: str) -> list[str]:
        """Return the lines of a sentinel's response."""
        login = ["--user", "sentinel", "-a", self._passwords["SENTINEL_PASSWORD"], "--no-auth-warning"]
        arguments = ["redis-cli", "-h", machine.address, "-p", str(SENTINEL_PORT), *login, *command]
        return (await asyncio.to_thread(machine.run, *arguments, check=False)).stdout.splitlines()

    def _server(self, machine: Machine, folder: Path) -> str:
        first = self._machines[1]
        follows = "" if machine is first else f"replicaof {first.address} {REDIS_PORT}\n"
        return (
            f"bind {machine.address}\nport {REDIS_PORT}\ndir {folder}\n"
            'appendonly yes\nappendfsync always\nsave ""\nhz 2\nmaxmemory-policy noeviction\n'
            "min-replicas-to-write 1\nmin-replicas-max-lag 5\nrepl-diskless-sync-delay 0\n"
            f"aclfile {self._folder}/servers.acl\n"
            f"masteruser replica\nmasterauth {self._passwords['REPLICA_PASSWORD']}\n{follows}"
        )

    def _sentinel(self, machine: Machine, folder: Path) -> str:
        password = self._passwords["SENTINEL_PASSWORD"]
        return (
            f"bind {machine.address}\nport {SENTINEL_PORT}\ndir {folder}\naclfile {self._folder}/sentinels.acl\n"
            f"sentinel monitor {PRIMARY} {self._machines[1].address} {REDIS_PORT} 2\n"
            f"sentinel down-after-milliseconds {PRIMARY} {DOWN_AFTER}\nsentinel failover-timeout {PRIMARY} 10000\n"
            f"sentinel auth-user {PRIMARY} sentinel\nsentinel auth-pass {PRIMARY} {password}\n"
            f"sentinel sentinel-user sentinel\nsentinel sentinel-pass {password}\n"
        )


def spawn(machine: Machine, name: str, *command: str, **options: Any) -> None:
    """Start a command on a machine, whose output is appended to a file on its disk."""
    with (machine.folder / f"{name}.log").open("ab") as log:
        machine.spawn(*command, stdin=subprocess.DEVNULL, stdout=log, stderr=log, **options)


def _runs(machine: Machine, program: str) -> bool:
    return machine.run("pgrep", "-x", program, check=False).returncode == 0
