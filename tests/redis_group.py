"""Three Redis servers and three sentinels, on this machine or on three simulated ones, and ways to make them fail."""

import contextlib
import ctypes
import os
import shutil
import signal
import subprocess
import uuid
from collections.abc import Iterator, Sequence
from pathlib import Path

from redis import Redis, RedisError

from tests.conftest import free_port
from tests.waiting import eventually_sync

NAME = "knoll"
SERVERS = 3
_CLONE_NEWNET = 0x40000000
_libc = ctypes.CDLL(None, use_errno=True)


class Machines:
    """One network namespace for each machine, and one with the switch between them. Needs root."""

    def __init__(self) -> None:
        self.prefix = f"kr{uuid.uuid4().hex[:6]}"
        self.switch = f"{self.prefix}-switch"
        self.addresses = [f"10.78.0.{number + 1}" for number in range(SERVERS)]

    def start(self) -> None:
        _ip("netns", "add", self.switch)
        _ip("-n", self.switch, "link", "set", "lo", "up")
        _ip("-n", self.switch, "link", "add", "switch", "type", "bridge")
        _ip("-n", self.switch, "address", "add", "10.78.0.254/24", "dev", "switch")
        _ip("-n", self.switch, "link", "set", "switch", "up")
        for number, address in enumerate(self.addresses):
            place = self.namespace(number)
            _ip("netns", "add", place)
            port = f"v{number}"
            _ip("-n", self.switch, "link", "add", port, "type", "veth", "peer", "name", "eth0", "netns", place)
            _ip("-n", self.switch, "link", "set", port, "master", "switch", "up")
            _ip("-n", place, "link", "set", "lo", "up")
            _ip("-n", place, "address", "add", f"{address}/24", "dev", "eth0")
            _ip("-n", place, "link", "set", "eth0", "up")

    def namespace(self, number: int) -> str:
        return f"{self.prefix}-{number}"

    def plug(self, number: int, *, connected: bool) -> None:
        """Connect a machine to the switch, or cut it off."""
        _ip("-n", self.switch, "link", "set", f"v{number}", "up" if connected else "down")

    def remove(self) -> None:
        listed = subprocess.run(["ip", "netns", "list"], capture_output=True, text=True, check=True).stdout.split()
        for name in listed:
            if name.startswith(self.prefix):
                _ip("netns", "delete", name)


def enter(namespace: str) -> None:
    """Move this thread into a network namespace, for the sockets that it makes."""
    handle = os.open(f"/run/netns/{namespace}", os.O_RDONLY)
    try:
        if _libc.setns(handle, _CLONE_NEWNET):
            raise OSError(ctypes.get_errno(), f"setns {namespace}")
    finally:
        os.close(handle)


def may_simulate_machines() -> bool:
    return os.geteuid() == 0 and shutil.which("ip") is not None and shutil.which("nsenter") is not None


class RedisGroup:
    """A primary, two replicas and three sentinels, as durable as in production."""

    def __init__(
        self,
        folder: Path,
        machines: Machines | None = None,
        *,
        down_after: int = 1500,
        server: str = "redis-server",
        more: Sequence[str] = (),
        more_of_sentinels: Sequence[str] = (),
        administrator: tuple[str, str] | None = None,
    ) -> None:
        """
        Args:
            down_after: milliseconds.
            more: additional arguments of each server.
            more_of_sentinels: additional lines of each sentinel's configuration.
            administrator: user and password as which the test asks servers and sentinels.
        """
        self._folder, self.machines, self._down_after, self._server = folder, machines, down_after, server
        self._more, self._more_of_sentinels, self._administrator = more, more_of_sentinels, administrator
        self._hosts = machines.addresses if machines else ["127.0.0.1"] * SERVERS
        self.ports = [6379 if machines else free_port() for _ in range(SERVERS)]
        self.sentinel_ports = [26379 if machines else free_port() for _ in range(SERVERS)]
        self.servers: list[subprocess.Popen[bytes] | None] = [None] * SERVERS
        self._sentinels: list[subprocess.Popen[bytes]] = []

    def url(self, replicas: int = 1) -> str:
        sentinels = ",".join(f"{host}:{port}" for host, port in zip(self._hosts, self.sentinel_ports, strict=True))
        return f"redis+sentinel://{sentinels}/0?master={NAME}&replicas={replicas}"

    def url_of(self, number: int) -> str:
        return f"redis://{self._hosts[number]}:{self.ports[number]}/0"

    def start(self) -> None:
        for number in range(SERVERS):
            self.start_server(number, primary=0 if number else None)
        eventually_sync(lambda: self.replicas_of(0) == SERVERS - 1, condition="replicas", within=60)
        for number in range(SERVERS):
            self._start_sentinel(number)
        eventually_sync(self._sentinels_know_each_other, condition="sentinels", within=60)

    def start_server(self, number: int, primary: int | None = None) -> None:
        """Start a server, with the data that it has; as a replica if `primary` is given."""
        folder = self._folder / f"redis-{number}"
        folder.mkdir(exist_ok=True)
        options = [
            *("--port", str(self.ports[number]), "--bind", self._hosts[number], "--dir", str(folder)),
            *("--save", "", "--appendonly", "yes", "--appendfsync", "always", "--protected-mode", "no"),
            *("--min-replicas-to-write", "1", "--min-replicas-max-lag", "3", "--repl-diskless-sync-delay", "0"),
            *("--logfile", str(folder / "log"), *self._more),
        ]
        if primary is not None:
            options += ["--replicaof", f"{self._hosts[primary]} {self.ports[primary]}"]
        self.servers[number] = subprocess.Popen([*self._on(number), self._server, *options], stdout=subprocess.DEVNULL)

    def primary(self) -> int:
        """Number of the server that a majority of the sentinels considers the primary."""
        named = [self._named_by(number) for number in range(SERVERS)]
        for number in range(SERVERS):
            if named.count(number) * 2 > SERVERS:
                return number
        raise AssertionError(f"sentinels name {named}")

    def is_promoted(self, *, other_than: int) -> bool:
        """Whether any sentinel names another server as primary."""
        named = {self._named_by(number) for number in range(SERVERS)}
        return bool(named - {other_than, None})

    def replicas_of(self, number: int) -> int:
        """How many replicas follow a server; -1 if it does not answer."""
        with self.client(number) as client, contextlib.suppress(RedisError):
            replication = client.info("replication")
            return sum(
                replication[name]["state"] == "online"
                for name in (f"slave{index}" for index in range(SERVERS))
                if name in replication
            )
        return -1

    def client(self, number: int) -> Redis:
        """A client of one server."""
        return self._client(self._hosts[number], self.ports[number])

    def sentinel_client(self, number: int) -> Redis:
        """A client of one sentinel."""
        return self._client(self._hosts[number], self.sentinel_ports[number])

    def signal(self, number: int, which: int) -> None:
        server = self.servers[number]
        assert server is not None
        server.send_signal(which)
        if which == signal.SIGKILL:
            server.wait(30)

    def close(self) -> None:
        for process in [*self._sentinels, *self.servers]:
            if process is not None and process.poll() is None:
                process.send_signal(signal.SIGCONT)
                process.kill()
                process.wait(30)

    def _start_sentinel(self, number: int) -> None:
        folder = self._folder / f"sentinel-{number}"
        folder.mkdir()
        configuration = [
            f"port {self.sentinel_ports[number]}",
            f"bind {self._hosts[number]}",
            "protected-mode no",
            f"dir {folder}",
            f"logfile {folder}/log",
            f"sentinel monitor {NAME} {self._hosts[0]} {self.ports[0]} 2",
            f"sentinel down-after-milliseconds {NAME} {self._down_after}",
            f"sentinel failover-timeout {NAME} 5000",
            *self._more_of_sentinels,
        ]
        file = folder / "sentinel.conf"
        file.write_text("\n".join(configuration) + "\n")
        self._sentinels.append(
            subprocess.Popen([*self._on(number), self._server, str(file), "--sentinel"], stdout=subprocess.DEVNULL)
        )

    def _on(self, number: int) -> list[str]:
        return ["nsenter", f"--net=/run/netns/{self.machines.namespace(number)}"] if self.machines else []

    def _sentinels_know_each_other(self) -> bool:
        for number in range(SERVERS):
            with self._client(self._hosts[number], self.sentinel_ports[number]) as client:
                try:
                    state = client.info("sentinel")["master0"]
                except RedisError:
                    return False
                if state["sentinels"] < SERVERS or state["slaves"] < SERVERS - 1:
                    return False
        return True

    def _named_by(self, number: int) -> int | None:
        with self._client(self._hosts[number], self.sentinel_ports[number]) as client:
            try:
                host, port = client.execute_command("SENTINEL", "GET-MASTER-ADDR-BY-NAME", NAME)
            except (RedisError, TypeError):
                return None
        places = list(zip(self._hosts, self.ports, strict=True))
        return places.index((_text(host), int(port)))

    def _client(self, host: str, port: int) -> Redis:
        user, password = self._administrator or (None, None)
        return Redis(host, port, username=user, password=password, socket_timeout=1, socket_connect_timeout=1)


@contextlib.contextmanager
def running(
    folder: Path, *, simulate_machines: bool = False, down_after: int = 1500, server: str = "redis-server"
) -> Iterator[RedisGroup]:
    """A group that runs. With simulated machines this thread is moved to their switch, from which it reaches all.

    Args: server: program of servers and sentinels.
    """
    machines = Machines() if simulate_machines else None
    home = os.open("/proc/thread-self/ns/net", os.O_RDONLY)
    group = RedisGroup(folder, machines, down_after=down_after, server=server)
    try:
        if machines:
            machines.start()
            enter(machines.switch)
        group.start()
        yield group
    finally:
        group.close()
        _libc.setns(home, _CLONE_NEWNET)
        os.close(home)
        if machines:
            machines.remove()


def _text(value: bytes | str) -> str:
    return value.decode() if isinstance(value, bytes) else value


def _ip(*arguments: str) -> None:
    subprocess.run(["ip", *arguments], check=True, capture_output=True)
