"""The firewall process in the network namespace of a simulated machine."""

import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import httpx
import msgspec
import pytest

from knoll.firewall.policy import AppliedPolicy, FirewallPolicy
from tests.component.firewall import hosts
from tests.component.firewall.hosts import Machine
from tests.conftest import need
from tests.waiting import eventually_sync

PLATFORM = "under-test"
POLICY = FirewallPolicy(bridge=hosts.BRIDGE, subnets=(hosts.SUBNET,))


@dataclass
class Firewall:
    """The running process."""

    machine: Machine
    socket: Path
    resolvers: Path
    process: "subprocess.Popen[str] | None" = None

    def start(self) -> None:
        self.process = subprocess.Popen(
            self._command(),
            env={**os.environ, **self._settings()},
            stdin=subprocess.DEVNULL,
            stderr=subprocess.STDOUT,
            stdout=subprocess.PIPE,
            text=True,
        )
        eventually_sync(self._listens, within=20, condition="the firewall's socket")

    def _listens(self) -> bool:
        assert self.process is not None
        if self.process.poll() is not None:
            raise RuntimeError(f"the firewall ended: {self.process.communicate()[0]}")
        return self.socket.exists()

    def kill(self) -> None:
        assert self.process is not None
        self.process.kill()
        self.process.wait()
        if self.process.stdout:
            self.process.stdout.close()
        self.socket.unlink(missing_ok=True)

    def put(self, policy: FirewallPolicy) -> AppliedPolicy:
        with httpx.Client(transport=httpx.HTTPTransport(uds=str(self.socket)), timeout=20) as client:
            answer = client.put("http://firewall/policy", content=msgspec.json.encode(policy))
        assert answer.is_success, answer.text
        return msgspec.json.decode(answer.content, type=AppliedPolicy)

    def put_raw(self, body: bytes) -> httpx.Response:
        with httpx.Client(transport=httpx.HTTPTransport(uds=str(self.socket)), timeout=20) as client:
            return client.put("http://firewall/policy", content=body)

    def remove(self) -> None:
        done = subprocess.run(
            self._command("--remove"), env={**os.environ, **self._settings()}, capture_output=True, text=True
        )
        assert done.returncode == 0, done.stdout + done.stderr

    def _command(self, *arguments: str) -> list[str]:
        inside = ["ip", "netns", "exec", self.machine["machine"].namespace]
        return [*inside, sys.executable, "-m", "knoll.firewall", *arguments]

    def _settings(self) -> dict[str, str]:
        return {
            "KNOLL_PLATFORM": PLATFORM,
            "KNOLL_FIREWALL_SOCKET": str(self.socket),
            "KNOLL_FIREWALL_GATEWAYS": f"{hosts.GATEWAY}:80,{hosts.MACHINE}:80",
            "KNOLL_FIREWALL_OWN_NETWORKS": hosts.OWN,
            "KNOLL_FIREWALL_RELAYS": hosts.GATEWAY,
            "KNOLL_INSTANCE_DNS": hosts.NAMES,
            "KNOLL_BUILD_BRIDGE": hosts.BUILD_BRIDGE,
        }


@pytest.fixture(scope="module")
def machine() -> Iterator[Machine]:
    need("NFT", os.geteuid() == 0 and (shutil.which("nft") is not None or Path("/usr/sbin/nft").exists()))
    with hosts.machine() as made:
        # `ip netns exec` shows this file as /etc/resolv.conf.
        folder = Path("/etc/netns") / made["machine"].namespace
        folder.mkdir(parents=True)
        (folder / "resolv.conf").write_text(f"nameserver {hosts.RESOLVER}\nnameserver 127.0.0.53\n")
        yield made
        shutil.rmtree(folder)


@pytest.fixture(scope="module")
def firewall(machine: Machine, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Firewall]:
    process = Firewall(machine, tmp_path_factory.mktemp("firewall") / "socket", Path())
    try:
        process.start()
        yield process
    finally:
        process.kill()
