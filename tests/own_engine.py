"""A container engine of a test's own, to kill and to start again; the machine's own engine is not affected.

It creates no packet filter rules (both engines would write the same chains), so instances are reached from this
machine alone.
"""

import contextlib
import os
import random
import shutil
import signal
import subprocess
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from tests.waiting import eventually_sync

START_SECONDS, STOP_SECONDS = 60, 60


@dataclass
class OwnEngine:
    """One engine in a folder."""

    folder: Path
    """Short, because it contains sockets."""
    network: int
    """Second byte of its default network's addresses, and its bridge's number."""
    process: subprocess.Popen[bytes] | None = None

    @property
    def socket(self) -> Path:
        return self.folder / "docker.sock"

    @property
    def bridge(self) -> str:
        """Of its default network. With none, or with address pools, a daemon removes the machine's `docker0`."""
        return f"knoll-test-{self.network}"

    @property
    def host(self) -> str:
        """For `docker -H` and DOCKER_HOST."""
        return f"unix://{self.socket}"

    def start(self) -> None:
        """Run the daemon and wait until it responds."""
        command = [
            "dockerd", "--host", self.host, "--data-root", str(self.folder / "data"),
            "--exec-root", str(self.folder / "exec"), "--pidfile", str(self.folder / "pid"), f"--bridge={self.bridge}",
            "--iptables=false", "--ip6tables=false", "--ip-masq=false", "--userland-proxy=false",
            "--containerd-namespace=knoll-test", "--containerd-plugins-namespace=knoll-test-plugins",
        ]  # fmt: skip
        # What a killed one left; it would take that process id for its own.
        (self.folder / "pid").unlink(missing_ok=True)
        with (self.folder / "log").open("ab") as log:
            self.process = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=log, stderr=log)
        try:
            eventually_sync(self.answers, within=START_SECONDS, condition="the engine")
        except AssertionError as error:
            end = (self.folder / "log").read_text(errors="replace")[-2000:]
            raise AssertionError(f"dockerd does not respond:\n{end}") from error

    def answers(self) -> bool:
        return self.docker("info", check=False).returncode == 0

    def kill(self) -> None:
        """Kill -9 the daemon; containers keep running until another one takes them over."""
        self._end(signal.SIGKILL)

    def stop(self) -> None:
        """End it and all of its containers in order."""
        self._end(signal.SIGTERM)

    def docker(self, *arguments: str, check: bool = True, stdin: object = None) -> subprocess.CompletedProcess[str]:
        """Run the docker command on it."""
        command = ["docker", "-H", self.host, *arguments]
        return subprocess.run(command, check=check, capture_output=True, text=True, timeout=120, stdin=stdin)  # type: ignore[call-overload, no-any-return]

    def copy_image(self, image: str) -> None:
        """Bring an image here from the machine's own engine."""
        with subprocess.Popen(["docker", "save", image], stdout=subprocess.PIPE) as saving:
            self.docker("load", stdin=saving.stdout)
        assert saving.returncode == 0, f"docker save {image}"

    def _end(self, number: signal.Signals) -> None:
        if self.process:
            self.process.send_signal(number)
            self.process.wait(STOP_SECONDS)
            self.process = None


@contextlib.contextmanager
def own_engine(folder: Path) -> Iterator[OwnEngine]:
    """An engine that runs, and nothing of it afterwards."""
    engine = OwnEngine(folder, random.randint(128, 250))
    folder.mkdir(parents=True, exist_ok=True)
    _ip("link", "add", engine.bridge, "type", "bridge")
    try:
        _ip("address", "add", f"10.{engine.network}.255.1/24", "dev", engine.bridge)
        _ip("link", "set", engine.bridge, "up")
        engine.start()
        yield engine
    finally:
        if engine.process is None:
            engine.start()
        ids = engine.docker("ps", "-aq", check=False).stdout.split()
        if ids:
            engine.docker("rm", "-f", *ids, check=False)
        for network in engine.docker("network", "ls", "-q", "--filter", "driver=bridge", check=False).stdout.split():
            engine.docker("network", "rm", network, check=False)
        engine.stop()
        _end_containerd(folder)
        _unmount(folder)
        _ip("link", "delete", engine.bridge)
        shutil.rmtree(folder, ignore_errors=True)


def _ip(*arguments: str) -> None:
    subprocess.run(["ip", *arguments], check=True, capture_output=True)


def _end_containerd(folder: Path) -> None:
    """One that a killed daemon left was taken over by the next, which does not end it."""
    output = subprocess.run(["ps", "-eo", "pid=,args="], capture_output=True, text=True, check=True).stdout
    for line in output.splitlines():
        pid, _, command = line.strip().partition(" ")
        if str(folder / "exec") in command:
            with contextlib.suppress(ProcessLookupError):
                os.kill(int(pid), signal.SIGKILL)


def _unmount(folder: Path) -> None:
    """A killed daemon leaves its mounts."""
    mounts = [line.split()[1] for line in Path("/proc/mounts").read_text().splitlines()]
    for mount in sorted((mount for mount in mounts if mount.startswith(f"{folder}/")), reverse=True):
        subprocess.run(["umount", "-l", mount], check=False)
