"""Memory of the machine."""

from pathlib import Path

MEMINFO = Path("/proc/meminfo")
_FIELDS = ("MemTotal", "MemAvailable")


def total_and_available(path: Path = MEMINFO) -> tuple[int, int | None]:
    """Return the machine's memory, and what programs can get of it without swapping; bytes.

    The second is None where the kernel does not tell it; the first is 0 then. In a container it is the machine's too.
    """
    fields: dict[str, int] = {}
    try:
        with path.open() as lines:
            for line in lines:
                name, _, value = line.partition(":")
                if name in _FIELDS:
                    fields[name] = int(value.split()[0]) * 1024
                    if len(fields) == len(_FIELDS):  # they are among the first of some fifty
                        break
        return fields["MemTotal"], fields["MemAvailable"]
    except (OSError, KeyError, IndexError, ValueError):
        return 0, None
