"""What differs in a container that is armed: it runs our program, which executes the container's own later. Pure."""

from collections.abc import Sequence

from autoscaler.runtime.docker import labels
from autoscaler.runtime.model import ContainerSpec
from knoll.values.json import Json

TARGET = "/dev/.knoll"
"""Folder of the program in a container. In /dev, which is a file system of its own: the image's stays as it is."""
PROGRAM = f"{TARGET}/arm"
FIRST_PORT = 64_999
"""Port of the first container; the next one has the next lower. Above those that the kernel gives to connections."""
_OWN_ARGUMENTS = 3
"""The program, its token and its port, before the arguments of the container's own program."""


def arguments(body: Json, entrypoint: Sequence[str], command: Sequence[str]) -> list[str]:
    """Return what the engine would execute.

    Args:
        body: request that creates the container.
        entrypoint: of the image.
        command: of the image.
    """
    return [*body.get("Entrypoint", entrypoint), *body.get("Cmd", command)]


def armed(body: Json, argv: Sequence[str], *, token: str, port: int, digest: str, volume: str) -> Json:
    """Return the request for a container that waits for its release.

    Args:
        body: request for the same container without waiting.
        argv: what it executes then; not empty.
        token: 32 letters or digits, which authorise the release.
        digest: of the instance's spec.
        volume: the engine's name of the volume that holds the program.
    """
    mount = {
        "Type": "volume", "Source": volume, "Target": TARGET, "ReadOnly": True, "VolumeOptions": {"NoCopy": True},
    }  # fmt: skip
    own = {labels.ARMED: digest, labels.ARM_TOKEN: token, labels.ARM_PORT: str(port)}
    host = body["HostConfig"]
    return {
        **body,
        "Entrypoint": [PROGRAM, token, str(port)],
        "Cmd": list(argv),
        "Labels": {**body["Labels"], **own},
        "HostConfig": {**host, "Mounts": [*host["Mounts"], mount]},
    }


def unarmed(body: Json) -> Json:
    """Undo `armed` in a request that is made from a container's description; others are returned as they are."""
    entrypoint = body.get("Entrypoint") or []
    if entrypoint[:1] != [PROGRAM]:
        return body
    argv = [*entrypoint, *(body.get("Cmd") or [])][_OWN_ARGUMENTS:]
    host, ours = body["HostConfig"], (labels.ARMED, labels.ARM_TOKEN, labels.ARM_PORT)
    return {
        **body,
        "Entrypoint": argv[:1],
        "Cmd": argv[1:],
        "Labels": {key: value for key, value in body["Labels"].items() if key not in ours},
        "HostConfig": {**host, "Mounts": [each for each in host.get("Mounts") or () if each["Target"] != TARGET]},
    }


def can_be_armed(containers: Sequence[ContainerSpec]) -> bool:
    """Return whether the program can be mounted: no container has a volume of its own in its place."""
    targets = {mount.target.rstrip("/") for container in containers for mount in container.mounts}
    return not targets & {"/dev", TARGET}
