"""Calls of Docker's command line for clusters: Swarm, and the platform's volumes, images and containers."""

import io
import json
import os
import re
import subprocess
import tarfile
import time
from collections.abc import Iterator, Mapping, Sequence
from typing import IO

from knoll.values.errors import KnollError
from knoll.values.json import Json

DEMOTION_SECONDS = 30.0
"""How long the demotion of a Swarm manager may take."""
USER = 10001
"""User of the platform's processes in its image."""


class EngineError(KnollError):
    """Docker refused a call; the message is Docker's own."""


def run(*arguments: str, data: bytes | None = None) -> bytes:
    """Run `docker` and return its output. Raises: EngineError."""
    try:
        done = subprocess.run(["docker", *arguments], input=data, capture_output=True)
    except OSError as error:
        raise EngineError(f"docker: {error.strerror}") from error
    if done.returncode:
        raise EngineError(f"docker {' '.join(arguments[:2])}: {done.stderr.decode(errors='replace').strip()[-1000:]}")
    return done.stdout


def info() -> Json:
    """Return `docker info`. Raises: EngineError: also when the daemon does not respond."""
    answer: Json = json.loads(run("info", "--format", "{{json .}}"))
    if answer.get("ServerErrors"):
        raise EngineError(f"Docker does not respond: {'; '.join(answer['ServerErrors'])[:500]}")
    return answer


def project_folder(platform: str) -> str:
    """Return the folder from which Compose started a platform here; empty if it did not. Raises: EngineError."""
    label, filters = "com.docker.compose.project.working_dir", f"label=com.docker.compose.project={platform}"
    output = run(
        "ps", "--filter", filters, "--filter", "label=com.docker.compose.service=api",
        "--format", f'{{{{.Label "{label}"}}}}',
    )  # fmt: skip
    return output.decode().strip().partition("\n")[0]


def write_volume(image: str, platform: str, name: str, files: Mapping[str, bytes], mode: int = 0o700) -> None:
    """Write files to a volume of the platform, readable by its processes only; a missing volume is created.

    Args: mode: of the volume's folder.

    Raises: EngineError.
    """
    volume = f"{platform}_{name}"
    labels = (f"com.docker.compose.project={platform}", f"com.docker.compose.volume={name}")
    run("volume", "create", *(part for label in labels for part in ("--label", label)), volume)
    archive = io.BytesIO()
    with tarfile.open(fileobj=archive, mode="w") as tar:
        for name, content in files.items():
            entry = tarfile.TarInfo(name)
            entry.size, entry.mode, entry.uid, entry.gid = len(content), 0o600, USER, USER
            tar.addfile(entry, io.BytesIO(content))
    script = f"tar -x -p -C /volume && chown {USER}:{USER} /volume && chmod {mode:04o} /volume"
    run(*_in_volume(image, volume, ""), "sh", "-c", script, data=archive.getvalue())


def read_volume(image: str, platform: str, name: str) -> dict[str, bytes]:
    """Return the files of a volume of the platform. Raises: EngineError."""
    output = run(*_in_volume(image, f"{platform}_{name}", ":ro"), "tar", "-c", "-C", "/volume", ".")
    files = {}
    with tarfile.open(fileobj=io.BytesIO(output)) as tar:
        for entry in tar:
            if entry.isfile() and (content := tar.extractfile(entry)) is not None:
                files[entry.name.removeprefix("./")] = content.read()
    return files


def _in_volume(image: str, volume: str, mode: str) -> Sequence[str]:
    mount = f"{volume}:/volume{mode}"
    return ("run", "--rm", "--interactive", "--user", "root", "--network", "none", "--volume", mount, image)


def saved(images: Sequence[str], target: IO[bytes]) -> None:
    """Write images to a file in the format of `docker load`. Raises: EngineError."""
    try:
        done = subprocess.run(["docker", "save", *images], stdout=target, stderr=subprocess.PIPE)
    except OSError as error:
        raise EngineError(f"docker: {error.strerror}") from error
    if done.returncode:
        raise EngineError(f"docker save: {done.stderr.decode(errors='replace').strip()[-1000:]}")


def remove_node(engine_id: str, *, manager: bool = False) -> None:
    """Remove an engine from the Swarm that the engine here manages, if it is in it. Raises: EngineError.

    Args: manager: whether it manages the Swarm, too.
    """
    deadline = time.monotonic() + DEMOTION_SECONDS
    while True:
        try:
            if manager:
                run("node", "demote", engine_id)
            run("node", "rm", "--force", engine_id)
        except EngineError as error:
            if re.search(r"no such node|node \S+ not found", str(error), re.IGNORECASE):
                return
            # Docker demotes a manager after it has replied.
            if not manager or "demoted" not in str(error) or time.monotonic() > deadline:
                raise
            time.sleep(0.5)
        else:
            return


def demote(engine_id: str) -> None:
    """Make the engine here a worker of the Swarm that it manages, and wait until it is one. Raises: EngineError."""
    run("node", "demote", engine_id)
    deadline = time.monotonic() + DEMOTION_SECONDS
    while (info().get("Swarm") or {}).get("ControlAvailable"):
        if time.monotonic() > deadline:
            raise EngineError("Docker did not demote this manager: run `docker swarm leave --force`")
        time.sleep(0.5)


def swarm_problems(engine: Json) -> Iterator[str]:
    """Yield why an engine cannot be in a cluster, each with a fix. Args: engine: output of `docker info`."""
    if engine.get("LiveRestoreEnabled"):
        yield (
            "live-restore is on, which engines of a cluster do not support: remove it from /etc/docker/daemon.json and "
            "restart Docker (containers restart with it)"
        )
    swarm = engine.get("Swarm") or {}
    if swarm.get("LocalNodeState") not in ("inactive", "active", "", None):
        yield f"the engine's cluster is in state {swarm['LocalNodeState']!r}: run `docker swarm leave --force` first"
    if swarm.get("Error"):
        yield f"the engine's cluster reports: {swarm['Error']}"


def start_platform(folder: str) -> None:
    """Start the platform of a folder, or change the running one; its output is shown. Raises: EngineError."""
    command = ["docker", "compose", "up", "--detach", "--no-build", "--wait"]
    environment = {key: value for key, value in os.environ.items() if not key.startswith("COMPOSE_")}
    if subprocess.run(command, cwd=folder, env=environment).returncode:
        raise EngineError(f"the platform did not become healthy: see `docker compose logs` in {folder}")
