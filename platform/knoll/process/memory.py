"""Memory of the machine."""

from pathlib import Path

MEMINFO = Path("/proc/meminfo")


def total_and_available(path: Path = MEMINFO) -> tuple[int, int | None]:
    """Return the machine's memory, and what programs can get of it without swapping; bytes.

    The second is None where the kernel does not tell it; the first is 0 then. In a container it is the machine's too.
    """
    try:
        lines = path.read_text().splitlines()
    except OSError:
        return 0, None
    fields = {name: value.split() for name, _, value in (line.partition(":") for line in lines)}
    try:
        return int(fields["MemTotal"][0]) * 1024, int(fields["MemAvailable"][0]) * 1024
    except (KeyError, IndexError, ValueError):
        return 0, None
