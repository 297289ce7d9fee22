"""Removes everything that a platform made on one machine, with Docker's command line."""

import shutil
from collections.abc import Sequence
from pathlib import Path

from knoll.cluster import bundle, engine_cli
from knoll.values.json import Json

PLATFORM_LABEL, PROJECT_LABEL = "knoll.dev/platform", "com.docker.compose.project"
NUMBER_LABEL = "com.docker.compose.container-number"
"""Of the containers that Compose starts, and of no image."""


def remove_platform(platform: str, image: str) -> None:
    """Remove processes, instances, firewall rules, networks and volumes; images stay. It may be repeated.

    Raises: EngineError.
    """
    # The processes end first, or the autoscaler would start again what is removed after them.
    if processes := _listed("ps", "--all", platform, PROJECT_LABEL):
        engine_cli.run("stop", *processes)
    for label in (PLATFORM_LABEL, PROJECT_LABEL):
        _remove(("rm", "--force", "--volumes"), _listed("ps", "--all", platform, label))
    _remove_rules(platform, image)
    for label in (PLATFORM_LABEL, PROJECT_LABEL):
        _remove(("network", "rm"), _listed("network", "ls", platform, label))
    _remove(("volume", "rm"), _listed("volume", "ls", platform, PROJECT_LABEL))


def leave_swarm(engine: Json) -> None:
    """Leave the Swarm; a worker needs no permission. Args: engine: output of `docker info`. Raises: EngineError."""
    swarm = engine.get("Swarm") or {}
    if swarm.get("ControlAvailable"):
        engine_cli.demote(swarm["NodeID"])
    if swarm.get("LocalNodeState") not in ("inactive", "", None):
        engine_cli.run("swarm", "leave")


def remove_files(home: Path) -> None:
    """Remove the files that a join wrote to a folder, and the folder if nothing else is in it."""
    for name in (*bundle.FILES, ".env", bundle.COMMAND):
        (home / name).unlink(missing_ok=True)
    shutil.rmtree(home / "node", ignore_errors=True)
    folders = sorted({home / parent for name in bundle.FILES for parent in Path(name).parents}, reverse=True)
    for folder in folders:
        if folder.is_dir() and not any(folder.iterdir()):
            try:
                folder.rmdir()
            except OSError:
                return  # it is a mount point: the command runs in a container that has the folder as a volume


def _listed(command: str, more: str, platform: str, label: str) -> list[str]:
    filters = ["--filter", f"label={label}={platform}"]
    if command == "ps" and label == PROJECT_LABEL:
        # Compose labels images that it builds, too, so this command's own container has the label of the project.
        filters += ["--filter", f"label={NUMBER_LABEL}"]
    return engine_cli.run(command, more, "--quiet", *filters).decode().split()


def _remove(command: Sequence[str], names: Sequence[str]) -> None:
    if names:
        engine_cli.run(*command, *names)


def _remove_rules(platform: str, image: str) -> None:
    engine_cli.run(
        "run", "--rm", "--network", "host", "--user", "root", "--cap-drop", "ALL", "--cap-add", "NET_ADMIN",
        "--env", f"KNOLL_PLATFORM={platform}", image, "python", "-m", "knoll.firewall", "--remove",
    )  # fmt: skip
