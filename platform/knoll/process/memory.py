"""Memory of the machine."""

from pathlib import Path

MEMINFO = Path("/proc/meminfo")
_FIELDS = ("MemTotal", "MemAvailable")


def total_and_available(path: Path = MEMINFO) -> tuple[int, int | None]:
    """Return the machine's memory, and what programs can get of it without swapping; bytes.

    If the kernel does not report both, they are 0 and None. In a container they are the machine's as well.
    """
    fields: dict[str, int] = {}
    try:
        with path.open() as lines:
            for line in lines:
                name, _, value = line.partition(":")
                if name in _FIELDS:
                    fields[name] = int(value.split()[0]) * 1024
                    if len(fields) == len(_FIELDS):  # they are among the first of about fifty lines
                        break
        return fields["MemTotal"], fields["MemAvailable"]
    except (OSError, KeyError, IndexError, ValueError):
        return 0, None
