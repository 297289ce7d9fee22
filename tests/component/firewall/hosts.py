"""A simulated machine: network namespaces for the machine, two bridges with containers, and hosts outside."""

import contextlib
import subprocess
import sys
import uuid
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

AGENT = Path(__file__).with_name("agent.py")
PORTS = (53, 80, 5432, 8000)
BRIDGE, BUILD_BRIDGE, OTHER_BRIDGE = "instances", "builds", "control"
SUBNET, OWN = "10.99.0.0/16", "10.99.0.0/17"
MACHINE, BUILD_MACHINE, OTHER_MACHINE, LAN_MACHINE = "10.99.0.1", "10.98.0.1", "10.97.0.1", "192.168.7.1"
GATEWAY, NAMES, FIRST, SECOND = "10.99.0.2", "10.99.0.3", "10.99.128.1", "10.99.128.2"
BUILD, REDIS = "10.98.0.2", "10.97.0.2"
INTERNET, NEIGHBOUR, METADATA, RESOLVER = "203.0.113.10", "192.168.7.7", "169.254.169.254", "192.168.7.53"


@dataclass
class Host:
    """One network namespace with an agent in it."""

    namespace: str
    process: "subprocess.Popen[str] | None" = None

    def start(self) -> None:
        command = ["ip", "netns", "exec", self.namespace, sys.executable, str(AGENT), *map(str, PORTS)]
        self.process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
        assert self._read() == "ready"

    def reaches(self, address: str, port: int, kind: str = "tcp") -> bool:
        """Whether a connection or a datagram gets a response."""
        return self.ask(kind, address, str(port)) == "yes"

    def ask(self, *arguments: str) -> str:
        assert self.process
        assert self.process.stdin
        self.process.stdin.write(" ".join(arguments) + "\n")
        self.process.stdin.flush()
        return self._read()

    def ip(self, *arguments: str) -> None:
        run("ip", "-n", self.namespace, *arguments)

    def nft(self, *arguments: str) -> str:
        return run("ip", "netns", "exec", self.namespace, "nft", *arguments)

    def _read(self) -> str:
        assert self.process
        assert self.process.stdout
        return self.process.stdout.readline().strip()


@dataclass
class Machine:
    """Everything together."""

    prefix: str = field(default_factory=lambda: f"kt{uuid.uuid4().hex[:6]}")
    hosts: dict[str, Host] = field(default_factory=dict)

    def __getitem__(self, name: str) -> Host:
        return self.hosts[name]

    def add(self, name: str) -> Host:
        host = self.hosts[name] = Host(f"{self.prefix}-{name}")
        run("ip", "netns", "add", host.namespace)
        host.ip("link", "set", "lo", "up")
        return host

    def plug(self, name: str, bridge: str, address: str, gateway: str) -> None:
        """A container on a bridge of the machine."""
        host, machine = self.add(name), self["machine"]
        machine.ip("link", "add", f"v-{name}", "type", "veth", "peer", "name", "eth0", "netns", host.namespace)
        machine.ip("link", "set", f"v-{name}", "master", bridge, "up")
        host.ip("link", "set", "eth0", "up")
        host.ip("address", "add", address, "dev", "eth0")
        host.ip("route", "add", "default", "via", gateway)


@contextlib.contextmanager
def machine() -> Iterator[Machine]:
    """Set it up, start its agents, and remove all of it afterwards."""
    made = Machine()
    try:
        _lay(made)
        for host in made.hosts.values():
            host.start()
        yield made
    finally:
        for host in made.hosts.values():
            if host.process:
                host.process.kill()
                host.process.communicate()
            subprocess.run(["ip", "netns", "delete", host.namespace], check=False, capture_output=True)


def _lay(made: Machine) -> None:
    centre = made.add("machine")
    for bridge, address in ((BRIDGE, MACHINE), (BUILD_BRIDGE, BUILD_MACHINE), (OTHER_BRIDGE, OTHER_MACHINE)):
        centre.ip("link", "add", bridge, "type", "bridge")
        centre.ip("address", "add", f"{address}/16", "dev", bridge)
        centre.ip("link", "set", bridge, "up")
    for name, bridge, address, gateway in (
        ("gateway", BRIDGE, GATEWAY, MACHINE), ("names", BRIDGE, NAMES, MACHINE), ("first", BRIDGE, FIRST, MACHINE),
        ("second", BRIDGE, SECOND, MACHINE), ("build", BUILD_BRIDGE, BUILD, BUILD_MACHINE),
        ("redis", OTHER_BRIDGE, REDIS, OTHER_MACHINE),
    ):  # fmt: skip
        made.plug(name, bridge, f"{address}/16", gateway)
    outside = made.add("outside")
    centre.ip("link", "add", "lan", "type", "veth", "peer", "name", "eth0", "netns", outside.namespace)
    centre.ip("address", "add", f"{LAN_MACHINE}/24", "dev", "lan")
    centre.ip("link", "set", "lan", "up")
    outside.ip("link", "set", "eth0", "up")
    outside.ip("address", "add", f"{NEIGHBOUR}/24", "dev", "eth0")
    for address in (INTERNET, METADATA, RESOLVER):
        outside.ip("address", "add", f"{address}/32", "dev", "eth0")
    outside.ip("route", "add", "10.0.0.0/8", "via", LAN_MACHINE)
    centre.ip("route", "add", "default", "via", NEIGHBOUR)
    run("ip", "netns", "exec", centre.namespace, "sysctl", "-q", "net.ipv4.ip_forward=1")


def run(*command: str) -> str:
    done = subprocess.run(command, check=False, capture_output=True, text=True, timeout=30)
    assert done.returncode == 0, f"{' '.join(command)}: {done.stderr}"
    return done.stdout
