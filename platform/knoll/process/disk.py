"""Free space on the disks of Docker, Redis and the uploads, and the errors when there is too little."""

import os
from pathlib import Path

from knoll.values.errors import StorageFullError
from knoll.values.quantity import canonical

WRITE_RESERVE_BYTES = 256 * 1024**2
"""Below this, the API refuses writes that make Redis' file grow: with `appendfsync always`, Redis exits if it cannot
write to it."""


def free_bytes(path: Path) -> int:
    """Bytes that unprivileged processes can write on the disk of `path`, which need not exist. Raises: OSError."""
    while not path.exists() and path != path.parent:
        path = path.parent
    filesystem = os.statvfs(path)
    return filesystem.f_bavail * filesystem.f_frsize


def of_engine(root: str) -> Path:
    """A path on the disk of the engine's files.

    Args:
        root: `DockerRootDir`, as reported by the engine. It does not exist in a container of that engine, whose root is
            on the same disk.
    """
    path = Path(root)
    return path if root and path.exists() else Path("/")


def human_readable(size: int) -> str:
    """Bytes as a readable quantity: two digits of the largest binary unit."""
    for power, unit in ((4, "Ti"), (3, "Gi"), (2, "Mi"), (1, "Ki")):
        if size >= 1024**power:
            return f"{size / 1024**power:.1f}{unit}"
    return str(size)


def quantity(size: int) -> str:
    """Bytes as an exact quantity of Kubernetes: the largest unit that leaves a whole number, binary units first."""
    if size and size % 1024 == 0:
        return canonical(f"{size // 1024}Ki")
    return canonical(str(size))


def check_pressure(path: Path, least: int, operation: str) -> None:
    """Refuse work that needs disk space while the disk is nearly full.

    Args:
        path: the directory it writes to.
        least: bytes that must be free; 0 switches the check off.
        operation: name of the work, for the message.

    Raises: StorageFullError.
    """
    if least and (free := free_bytes(path)) < least:
        raise StorageFullError(
            f"DiskPressure: {operation} is refused while less than {quantity(least)} (config-security, "
            f"disk-pressure-free) is free on the disk of {path}: {human_readable(free)} free; delete files there, "
            "`docker system df` shows the usage"
        )


def check_writable(path: Path, least: int = WRITE_RESERVE_BYTES) -> None:
    """Refuse an object while Redis' disk is nearly full. Raises: StorageFullError."""
    if (free := free_bytes(path)) < least:
        raise StorageFullError(
            f"the disk of {path}, where Redis keeps its file, is nearly full ({human_readable(free)} free, "
            f"{quantity(least)} reserved): delete objects or free disk space; reads and deletions still work"
        )
