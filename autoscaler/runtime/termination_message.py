"""The last words of a container that failed: what its condition's message quotes."""

from collections.abc import AsyncIterator

from autoscaler.runtime.protocol import LogChunk, Runtime

LINES = 10
BYTES = 2048


async def last_words(runtime: Runtime, name: str, container: str) -> str:
    """The last lines that a container of an instance wrote, bounded; empty when there are none.

    Raises:
        NotFoundError: no such instance or container.
    """
    return await tail_of(runtime.logs(name, container, tail=LINES))


async def tail_of(chunks: AsyncIterator[LogChunk]) -> str:
    """The end of a log as text: at most `BYTES` bytes, whole lines where there are several, no space around it."""
    data = b""
    cut = False
    async for chunk in chunks:
        data += chunk.data
        cut = cut or len(data) > BYTES
        data = data[-BYTES:]
    if cut and b"\n" in data.rstrip():
        data = data[data.index(b"\n") + 1 :]
    return data.decode(errors="replace").strip()
