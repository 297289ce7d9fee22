"""Several machines on this one, each with a container engine of its own, for tests of clusters.

A machine is a network, mount, PID and UTS namespace in which dockerd runs with its containerd. SIGKILL of the first
process in the PID namespace is a power cut: the kernel ends everything in it at that moment, and its mounts vanish with
the mount namespace. The disk (a folder) stays, so the machine can boot again. The machines are connected by a bridge in
a network namespace of its own: in the namespace of this machine, the engine's packet filter would drop their traffic.

Only one process at a time has such machines (`machines` waits for its turn). They end with the process that
started them, even if it is killed; what it leaves is removed before the next ones start.
"""

import concurrent.futures
import contextlib
import fcntl
import functools
import json
import os
import shutil
import signal
import subprocess
import tempfile
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from tests.waiting import eventually_sync

BRIDGE = "switch"
CGROUPS = Path("/sys/fs/cgroup")
BOOT_SECONDS, CALL_SECONDS = 60, 120
PROGRAMS = ("dockerd", "containerd", "docker", "iptables", "tini", "ip", "nsenter", "unshare", "setpriv")
"""Programs of Debian's docker.io, docker-cli, iptables, tini, iproute2 and util-linux."""

BOOT = """
mount -t tmpfs tmpfs /run
mkdir -p "$CGROUP_ROOT" && hostname "$MACHINE"
exec tini -s -- dockerd --host "unix://$DISK/docker.sock" --host unix:///run/docker.sock --data-root "$DISK/data" \\
  --exec-root "$DISK/exec" --pidfile /run/docker.pid --cgroup-parent "/$CGROUP/containers" --bip "$BRIDGE_ADDRESS" \\
  --userland-proxy=false --default-address-pool "base=$POOL,size=20" $OPTIONS
"""
"""An empty /run: a containerd of this machine, and the lock of its packet filter, are not the new machine's."""


def available() -> bool:
    """Return whether this process can start machines."""
    return os.geteuid() == 0 and all(shutil.which(program) for program in PROGRAMS)


@dataclass(frozen=True, slots=True)
class Site:
    """Where machines keep their resources. The names are fixed, so that a run can remove what a killed run left."""

    prefix: str = os.environ.get("KNOLL_TEST_SITE", "knoll-lab")
    """Prefix of the names of network namespaces; name of the control group and the folder."""
    network: str = "10.77.0"

    @property
    def folder(self) -> Path:
        """Folder of their disks. Its path is short, because it contains sockets."""
        return Path(tempfile.gettempdir()) / self.prefix

    @property
    def switch(self) -> str:
        """Network namespace of the bridge that connects them."""
        return f"{self.prefix}-switch"

    def groups(self, name: str = "") -> list[Path]:
        """Return the folders of a control group: one with cgroup v2, one for each controller before."""
        if (CGROUPS / "cgroup.controllers").exists():
            return [CGROUPS / self.prefix / name]
        return [CGROUPS / controller / self.prefix / name for controller in ("cpu", "memory", "pids")]

    def thaw(self, name: str) -> None:
        """Thaw the processes below a control group: before cgroup v2, a frozen process is not killed until then."""
        for state in (CGROUPS / "freezer" / self.prefix / name).rglob("freezer.state"):
            with contextlib.suppress(OSError):
                state.write_text("THAWED")

    def processes(self) -> list[int]:
        """Return the processes of machines: those in their network namespaces or control groups."""
        inodes = {file.stat().st_ino for file in Path("/run/netns").glob(f"{self.prefix}-*")}
        pids = []
        for folder in Path("/proc").glob("[0-9]*"):
            with contextlib.suppress(OSError):
                in_group = f"/{self.prefix}/" in (folder / "cgroup").read_text()
                state = (folder / "stat").read_text().rpartition(")")[2].split()[0]
                if state != "Z" and (in_group or (folder / "ns/net").stat().st_ino in inodes):
                    pids.append(int(folder.name))
        return pids

    def sweep(self) -> None:
        """End and remove everything of machines; the caller has their lock, or no other run uses this site."""
        # Those of a killed run end with it, but not at once.
        for pid in self.processes():
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        self.thaw("")
        eventually_sync(lambda: not self.processes(), CALL_SECONDS, "the end of all processes of machines")
        for line in Path("/proc/mounts").read_text().splitlines():
            if line.split()[1].startswith(f"{self.folder}/"):
                subprocess.run(["umount", "--lazy", line.split()[1]], check=False)
        listed = subprocess.run(["ip", "netns", "list"], check=True, capture_output=True, text=True).stdout
        for line in listed.splitlines():
            if line.startswith(f"{self.prefix}-"):
                _ip("netns", "delete", line.split()[0])
        shutil.rmtree(self.folder, ignore_errors=True)
        for root in {*self.groups(), *CGROUPS.glob(f"*/{self.prefix}")}:
            eventually_sync(functools.partial(_removed, root), CALL_SECONDS, f"the removal of {root}")


SITE = Site()


@dataclass
class Machine:
    """One machine, switched on or off."""

    number: int
    """Number of the machine, from 1."""
    site: Site = SITE
    options: Sequence[str] = ()
    """More arguments of dockerd."""
    process: subprocess.Popen[bytes] | None = None
    """Process outside that runs it; None while it is off."""
    _children: list[subprocess.Popen[str]] = field(default_factory=list)

    @property
    def name(self) -> str:
        """Host name."""
        return f"n{self.number}"

    @property
    def address(self) -> str:
        return f"{self.site.network}.{self.number}"

    @property
    def folder(self) -> Path:
        """Its disk."""
        return self.site.folder / self.name

    @property
    def socket(self) -> Path:
        """The engine's socket, as seen from outside."""
        return self.folder / "docker.sock"

    @property
    def namespace(self) -> str:
        """Name of its network namespace."""
        return f"{self.site.prefix}-{self.name}"

    @property
    def init(self) -> int:
        """Process id, outside, of the first process in it."""
        assert self.process is not None, f"{self.name} is off"
        return int(Path(f"/proc/{self.process.pid}/task/{self.process.pid}/children").read_text().split()[0])

    def boot(self) -> None:
        """Switch it on and wait until its engine responds. Its containers and images are those of before."""
        self.switch_on()
        self.wait_until_ready()

    def switch_on(self) -> None:
        """Switch it on. It ends with the thread that calls this, which has to be the main thread."""
        assert self.process is None, f"{self.name} is on"
        self.heal()
        self.socket.unlink(missing_ok=True)
        shutil.rmtree(self.folder / "exec", ignore_errors=True)
        (self.folder / "exec").mkdir(parents=True)
        environment = {
            **os.environ, "MACHINE": self.name, "DISK": str(self.folder), "CGROUP": f"{self.site.prefix}/{self.name}",
            "CGROUP_ROOT": "/run/docker", "BRIDGE_ADDRESS": f"172.{20 + self.number}.0.1/16",
            "POOL": f"10.{100 + self.number}.0.0/16", "OPTIONS": " ".join(self.options),
        }  # fmt: skip
        command = [
            "setpriv", "--pdeathsig", "KILL", "nsenter", f"--net=/run/netns/{self.namespace}",
            "unshare", "--mount", "--uts", "--pid", "--fork", "--kill-child=KILL", "--mount-proc", "sh", "-ec", BOOT,
        ]  # fmt: skip
        with (self.folder / "log").open("ab") as log:
            self.process = subprocess.Popen(
                command, env=environment, stdin=subprocess.DEVNULL, stdout=log, stderr=log, start_new_session=True
            )

    def wait_until_ready(self) -> None:
        """Wait until its engine responds."""
        eventually_sync(self._has_init, within=BOOT_SECONDS, condition=f"the first process of {self.name}")
        for group in self.site.groups(f"{self.name}/engine"):
            group.mkdir(parents=True, exist_ok=True)
            (group / "cgroup.procs").write_text(str(self.init))
        try:
            eventually_sync(self.responds, within=BOOT_SECONDS, condition=f"the engine of {self.name}")
        except AssertionError as error:
            raise AssertionError(f"{self.name} does not boot:\n{self.log()[-2000:]}") from error

    def log(self) -> str:
        """Return the log of its engine."""
        return (self.folder / "log").read_text(errors="replace")

    def responds(self) -> bool:
        """Return whether its engine responds."""
        assert self.process is not None
        assert self.process.poll() is None, f"{self.name} has ended"
        return self.docker("version", check=False).returncode == 0

    def power_cut(self) -> None:
        """Switch it off as a power cut does; returns when none of its processes runs.

        Its cable is pulled first and plugged in again when it is switched on: otherwise the kernel would close its
        connections, and the others would notice at once.
        """
        assert self.process is not None, f"{self.name} is off"
        self.cut_off()
        with contextlib.suppress(ProcessLookupError, FileNotFoundError, IndexError):
            os.kill(self.init, signal.SIGKILL)
        self.site.thaw(f"{self.name}/containers")
        self.process.wait(CALL_SECONDS)  # the kernel ends it after everything in the namespace
        self.process = None
        for child in self._children:
            child.wait(CALL_SECONDS)
        self._children.clear()

    def cut_off(self) -> None:
        """Pull the network cable; the machine keeps running."""
        _ip("-n", self.site.switch, "link", "set", self._port, "down")

    def heal(self) -> None:
        """Plug the network cable in again."""
        _ip("-n", self.site.switch, "link", "set", self._port, "up")

    def limit_cpu(self, cores: float | None) -> None:
        """Limit what everything on it may use of the CPU.

        Args: cores: > 0; None removes the limit.
        """
        period = 100_000
        quota = None if cores is None else round(cores * period)
        for group in self.site.groups(self.name):
            if (group / "cpu.max").exists():
                (group / "cpu.max").write_text(f"{'max' if quota is None else quota} {period}")
            elif (group / "cpu.cfs_quota_us").exists():
                (group / "cpu.cfs_quota_us").write_text(str(-1 if quota is None else quota))

    def command(self, *arguments: str) -> list[str]:
        """Return a command that runs `arguments` on this machine: in its namespaces, and limited with it."""
        inside = ["nsenter", f"--target={self.init}", "--net", "--mount", "--uts", "--pid", "--", *arguments]
        groups = " ".join(str(group / "cgroup.procs") for group in self.site.groups(f"{self.name}/engine"))
        return ["sh", "-c", f'for file in {groups}; do echo $$ >"$file"; done; exec "$@"', "sh", *inside]

    def run(self, *arguments: str, check: bool = True, **options: Any) -> subprocess.CompletedProcess[str]:
        """Run a command on it, and wait for its end.

        Args: options: of `subprocess.run`.
        """
        options = {"capture_output": True, "timeout": CALL_SECONDS, **options}
        return subprocess.run(self.command(*arguments), check=check, text=True, **options)

    def spawn(self, *arguments: str, **options: Any) -> subprocess.Popen[str]:
        """Start a process on it, which ends with the machine at the latest.

        Args: options: of `subprocess.Popen`.
        """
        child = subprocess.Popen(self.command(*arguments), text=True, **options)
        self._children.append(child)
        return child

    def docker(self, *arguments: str, check: bool = True, stdin: Any = None) -> subprocess.CompletedProcess[str]:
        """Run the docker command with its engine."""
        command = ["docker", "-H", f"unix://{self.socket}", *arguments]
        return subprocess.run(command, check=check, capture_output=True, text=True, timeout=CALL_SECONDS, stdin=stdin)

    @property
    def _port(self) -> str:
        return f"port{self.number}"

    def _has_init(self) -> bool:
        assert self.process is not None
        assert self.process.poll() is None, f"{self.name} does not start:\n{self.log()[-2000:]}"
        with contextlib.suppress(FileNotFoundError, IndexError):
            return Path(f"/proc/{self.init}/stat").exists()
        return False

    def connect(self) -> None:
        """Create its network interface and connect it to the switch."""
        _ip("netns", "add", self.namespace)
        _ip(
            "-n",
            self.site.switch,
            "link",
            "add",
            self._port,
            "type",
            "veth",
            "peer",
            "name",
            "eth0",
            "netns",
            self.namespace,
        )
        _ip("-n", self.site.switch, "link", "set", self._port, "master", BRIDGE, "up")
        _ip("-n", self.namespace, "link", "set", "lo", "up")
        _ip("-n", self.namespace, "address", "add", f"{self.address}/24", "dev", "eth0")
        _ip("-n", self.namespace, "link", "set", "eth0", "up")
        _ip("-n", self.namespace, "route", "add", "default", "via", f"{self.site.network}.254")


@dataclass
class Machines:
    """All machines."""

    all: list[Machine]

    def __getitem__(self, number: int) -> Machine:
        """Return a machine by its number, from 1."""
        return self.all[number - 1]

    def __iter__(self) -> Iterator[Machine]:
        return iter(self.all)

    def copy_images(self, *references: str) -> None:
        """Copy images of this machine's own engine to all of them, with their ids."""
        archive = self[1].site.folder / "images.tar"
        subprocess.run(["docker", "save", "--output", str(archive), *references], check=True, timeout=CALL_SECONDS)
        with concurrent.futures.ThreadPoolExecutor() as pool:
            for loaded in pool.map(lambda machine: machine.docker("load", "--input", str(archive)), self.all):
                assert loaded.returncode == 0
        archive.unlink()

    def form_swarm(self, managers: int = 1) -> None:
        """Make them a Docker Swarm; the first ones are its managers.

        Args: managers: how many, >= 1.
        """
        first = self[1]
        first.docker("swarm", "init", "--advertise-addr", first.address)
        for machine in self.all[1:]:
            role = "manager" if machine.number <= managers else "worker"
            token = first.docker("swarm", "join-token", "--quiet", role).stdout.strip()
            machine.docker("swarm", "join", "--token", token, "--advertise-addr", machine.address, first.address)
        eventually_sync(
            lambda: len(self.ready_nodes(first)) == len(self.all), 60, "all machines are ready in the Swarm"
        )

    def ready_nodes(self, manager: Machine) -> dict[str, str]:
        """Return the ready nodes of the Swarm, host name to id, according to a manager; none if it does not respond."""
        answer = manager.docker("node", "ls", "--format", "{{json .}}", check=False)
        nodes = [json.loads(line) for line in answer.stdout.splitlines()]
        return {node["Hostname"]: node["ID"] for node in nodes if node["Status"] == "Ready"}


@contextlib.contextmanager
def machines(count: int, options: Sequence[str] = (), site: Site = SITE) -> Iterator[Machines]:
    """Start machines, all at once; nothing of them is left at the end.

    Args:
        count: how many, 1 to 9.
        options: more arguments of dockerd.
        site: where they are; only one process at a time has machines at a site.
    """
    with Path(f"{site.folder}.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        site.sweep()
        started = Machines([Machine(number, site, options) for number in range(1, count + 1)])
        try:
            _ip("netns", "add", site.switch)
            _ip("-n", site.switch, "link", "add", BRIDGE, "type", "bridge")
            _ip("-n", site.switch, "address", "add", f"{site.network}.254/24", "dev", BRIDGE)
            _ip("-n", site.switch, "link", "set", BRIDGE, "up")
            for machine in started:
                machine.folder.mkdir(parents=True)
                machine.connect()
            for machine in started:
                machine.switch_on()
            for machine in started:
                machine.wait_until_ready()
            yield started
        finally:
            for machine in started:
                if machine.process is not None:
                    machine.power_cut()
            site.sweep()


def _removed(root: Path) -> bool:
    """Remove a control group with all groups in it; False while a process of it is ending."""
    for folder, _, _ in os.walk(root, topdown=False):
        with contextlib.suppress(OSError):
            Path(folder).rmdir()
    return not root.exists()


def _ip(*arguments: str) -> None:
    subprocess.run(["ip", *arguments], check=True, capture_output=True, timeout=CALL_SECONDS)
