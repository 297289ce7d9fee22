"""`knoll up` ends as it began: nothing of it is left, however it ends."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.e2e.platform import PROCESSES, Platform, running
from tests.waiting import eventually_sync

pytestmark = [pytest.mark.docker, pytest.mark.redis]

MANIFEST = """
apiVersion: serving.knative.dev/v1
kind: Service
metadata: {name: short, namespace: default}
spec: {template: {spec: {containers: [{image: rest-api-go:v1}]}}}
"""


def left(platform: Platform) -> list[str]:
    """Containers and networks of a platform."""
    label = f"--filter=label=knoll.dev/platform={platform.name}"
    commands = [["docker", "ps", "-aq", label], ["docker", "network", "ls", "-q", label]]
    return [
        object_id
        for arguments in commands
        for object_id in subprocess.run(arguments, capture_output=True, text=True).stdout.split()
    ]


AS_NOBODY = ("setpriv", "--reuid=65534", "--regid=65534", "--clear-groups")


def knoll_without_a_server(platform: Platform, *arguments: str) -> str:
    """What the command prints that is told no address, only the folder of the platform."""
    environment = {name: value for name, value in os.environ.items() if name not in ("KNOLL_SERVER", "KUBECONFIG")}
    command = [sys.executable, "-m", "knoll.cli", *arguments]
    done = subprocess.run(
        command, capture_output=True, text=True, timeout=60, env={**environment, "KNOLL_DATA": str(platform.data)}
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


def curl(*arguments: str, before: tuple[str, ...] = ()) -> str:
    return subprocess.run([*before, "curl", "-s", *arguments], capture_output=True, text=True, timeout=60).stdout


@pytest.mark.kubectl
@pytest.mark.timeout(200)
def test_ctrl_c_removes_all_containers_and_keeps_the_objects(
    sample: str, tmp_path: Path, tmp_path_factory: pytest.TempPathFactory
) -> None:
    with running(tmp_path) as platform:
        platform.kubectl("apply", "-f", "-", stdin=MANIFEST)
        platform.kubectl("wait", "ksvc/short", "--for=condition=Ready", "--timeout=60s")
        assert platform.containers("label=knoll.dev/role=app")
        assert "short" in knoll_without_a_server(platform, "status")
        assert "https://127.0.0.1:" in knoll_without_a_server(platform, "kubeconfig")
        secrets = "api/v1/namespaces/default/secrets"
        assert '"items"' in curl(f"{platform.api}/{secrets}")
        socket = ("--unix-socket", str(platform.data / "api.sock"))
        assert '"items"' in curl(f"http://localhost/{secrets}", *socket)
        if os.geteuid() == 0:
            refused = curl(f"{platform.api}/{secrets}", before=AS_NOBODY)
            assert '"code":401' in refused
            assert curl(f"http://localhost/{secrets}", *socket, before=AS_NOBODY) == ""
            log = f"http://127.0.0.1:{platform.environment['KNOLL_AUTOSCALER_ADMIN_PORT']}/instances"
            assert "only the API may call this" in curl(log, before=AS_NOBODY)
    assert platform.process.returncode == 0
    assert left(platform) == []
    with running(tmp_path, home=tmp_path_factory.mktemp("home")) as again:
        again.kubectl("wait", "ksvc/short", "--for=condition=Ready", "--timeout=60s")
        again.kubectl("delete", "ksvc", "short")


@pytest.mark.timeout(200)
def test_when_it_is_killed_its_processes_end_too(platform: Platform, tmp_path: Path) -> None:
    with running(tmp_path) as short:
        children = [pid for name in (*PROCESSES, "redis") for pid in short.pids(name)]
        assert len(children) == len(PROCESSES) + 1
        short.process.kill()
        short.process.wait()
        eventually_sync(lambda: not any(Path(f"/proc/{pid}").exists() for pid in children), within=60)
        assert "previous run was killed" in down(short).stderr
    assert left(short) == []


@pytest.mark.timeout(200)
def test_one_platform_has_a_folder_until_it_is_ended_from_elsewhere(tmp_path: Path) -> None:
    with running(tmp_path) as short:
        second = knoll("up", "--data", str(short.data), "--platform", short.name)
        assert second.returncode == 1
        assert f"`knoll up` is already running in {short.data} (process {short.process.pid})" in second.stderr
        ended = down(short)
        assert (ended.returncode, short.process.wait(30)) == (0, 0), ended.stderr
        assert left(short) == []
        assert "no `knoll up` is running" in down(short, "--delete-data").stderr
        assert not short.data.exists()


def down(platform: Platform, *arguments: str) -> subprocess.CompletedProcess[str]:
    return knoll("down", "--data", str(platform.data), *arguments)


def knoll(*arguments: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "knoll.cli", *arguments]
    environment = {**os.environ, "COLUMNS": "300", "NO_COLOR": "1"}
    return subprocess.run(command, capture_output=True, text=True, timeout=100, env=environment)
