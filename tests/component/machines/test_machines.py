"""The machines on which clusters are tested: they are separate, lose their power, and leave nothing behind."""

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from tests.machines import SITE, Machines, Site, machines
from tests.waiting import eventually_sync

pytestmark = [pytest.mark.docker, pytest.mark.machines]

CONNECT = "import socket, sys; socket.create_connection((sys.argv[1], 8000), 2)"


def test_each_machine_has_a_name_an_address_and_an_engine_of_its_own(lab: Machines) -> None:
    names = [machine.run("hostname").stdout.strip() for machine in lab]
    assert names == ["n1", "n2", "n3"]
    ids = {machine.docker("info", "--format", "{{.ID}}").stdout for machine in lab}
    assert len(ids) == 3
    assert lab[1].run("docker", "info", "--format", "{{.Name}}").stdout.strip() == "n1", "its own socket, inside"
    assert lab[2].address in lab[2].run("ip", "-4", "address", "show", "eth0").stdout


def test_processes_of_a_machine_see_only_each_other(lab: Machines) -> None:
    child = lab[3].spawn("sleep", "1000")
    eventually_sync(lambda: _inside(lab, 3, "sleep 1000"))
    assert not _inside(lab, 1, "sleep 1000")
    lab[3].run("kill", str(_inside(lab, 3, "sleep 1000")))
    child.wait(30)


def test_machines_reach_each_other_unless_one_is_cut_off(lab: Machines) -> None:
    def reaches() -> bool:
        return lab[1].run(sys.executable, "-c", CONNECT, lab[2].address, check=False).returncode == 0

    server = lab[2].spawn(
        sys.executable, "-m", "http.server", "8000", stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
    )
    eventually_sync(reaches)
    lab[2].cut_off()
    assert not reaches()
    assert lab[2].responds(), "it runs all the same"
    lab[2].heal()
    eventually_sync(reaches)
    lab[2].run("kill", str(_inside(lab, 2, "http.server")))
    server.wait(30)


def test_a_power_cut_ends_everything_on_a_machine_and_keeps_its_disk(lab: Machines) -> None:
    machine = lab[3]
    machine.docker("volume", "create", "kept")
    child = machine.spawn("sleep", "1000")
    eventually_sync(lambda: _inside(lab, 3, "sleep 1000"))
    machine.power_cut()
    assert child.returncode is not None
    groups = [Path(f"/proc/{pid}/cgroup").read_text() for pid in SITE.processes()]
    assert not [group for group in groups if "/n3/" in group]
    assert lab[1].responds()
    machine.boot()
    assert "kept" in machine.docker("volume", "ls", "--quiet").stdout
    assert not _inside(lab, 3, "sleep 1000")
    machine.docker("volume", "rm", "kept")


def test_what_a_machine_may_use_of_the_cpu_is_limited(lab: Machines) -> None:
    machine = lab[1]
    machine.limit_cpu(0.2)
    # Of two processes that compute for as long as the first of them takes, the limited one gets less done.
    work = "import time\nn=0\nend=time.monotonic()+1\nwhile time.monotonic()<end: n+=1\nprint(n)"
    limited = int(machine.run(sys.executable, "-c", work).stdout)
    machine.limit_cpu(None)
    free = int(machine.run(sys.executable, "-c", work).stdout)
    assert limited < free


OTHER = Site(f"{SITE.prefix}2", "10.78.0")
KILLED = """
import time
from tests.machines import SITE, Site, machines
with machines(1, site=Site(f"{SITE.prefix}2", "10.78.0")):
    print("up", flush=True)
    time.sleep(1000)
"""


def test_what_a_killed_run_leaves_is_removed_by_the_next(lab: Machines) -> None:
    """Uses a separate site, because the machines of this run exist at the same time."""
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
    with subprocess.Popen([sys.executable, "-c", KILLED], stdout=subprocess.PIPE, text=True, env=environment) as run:
        assert run.stdout is not None
        assert run.stdout.readline() == "up\n"
        run.send_signal(signal.SIGKILL)
    assert OTHER.folder.exists()
    with machines(1, site=OTHER) as others:
        assert others[1].docker("ps", "--all", "--quiet").stdout == ""
    assert not OTHER.processes()
    assert OTHER.prefix not in subprocess.run(["ip", "netns"], capture_output=True, text=True, check=True).stdout
    assert not list(Path("/sys/fs/cgroup").glob(f"**/{OTHER.prefix}"))
    assert not OTHER.folder.exists()
    assert OTHER.prefix not in Path("/proc/mounts").read_text()
    assert all(machine.responds() for machine in lab)


def _inside(lab: Machines, number: int, command: str) -> int:
    """Return the process id, on a machine, of a command; 0 if it does not run."""
    script = 'for each in /proc/[0-9]*; do echo "${each##*/} $(tr "\\0" " " <$each/cmdline)"; done'
    lines = lab[number].run("sh", "-c", script, check=False).stdout.splitlines()
    return next((int(line.split()[0]) for line in lines if command in line), 0)
