"""The end of a failed container's log, which its condition quotes."""

from collections.abc import AsyncIterator

from autoscaler.runtime.model import LogChunk
from autoscaler.runtime.protocol import Runtime

LINES = 10
BYTES = 2048


async def termination_message(runtime: Runtime, name: str, container: str) -> str:
    """Return the last lines of a container's log, bounded; empty when there are none.

    Raises:
        NotFoundError: no such instance or container.
    """
    return await tail_of(runtime.logs(name, container, tail=LINES))


async def tail_of(chunks: AsyncIterator[LogChunk]) -> str:
    """Return the end of a log as text: at most `BYTES` bytes, whole lines where possible, stripped."""
    data = b""
    cut = False
    async for chunk in chunks:
        data += chunk.data
        cut = cut or len(data) > BYTES
        data = data[-BYTES:]
    if cut and b"\n" in data.rstrip():
        data = data[data.index(b"\n") + 1 :]
    return data.decode(errors="replace").strip()
