"""An app that reads request bodies to their end: `python -m bench.lib.upload_app PORT`.

nginx alone cannot be this app: `return` responds without reading the body, and its other handlers write bodies to disk.
"""

import asyncio
import re
import sys
from typing import cast

import uvloop

from bench.lib.stage import HOST

BUFFER_BYTES = 1 << 20
_content_length = re.compile(rb"(?i)\r\ncontent-length: *(\d+)").search


class Upload(asyncio.BufferedProtocol):
    """One connection: requests with a Content-Length, one after the other."""

    def __init__(self) -> None:
        self._buffer = bytearray(BUFFER_BYTES)
        self._head = b""
        self._left = 0

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.Transport, transport)

    def get_buffer(self, sizehint: int) -> bytearray:
        return self._buffer

    def buffer_updated(self, nbytes: int) -> None:
        if not self._left:
            self._head += self._buffer[:nbytes]
            end = self._head.find(b"\r\n\r\n") + 4
            if end < 4:
                return
            length = _content_length(self._head[:end])
            self._left, nbytes, self._head = int(length[1]) if length else 0, len(self._head) - end, b""
        self._left -= nbytes
        if self._left <= 0:
            assert not self._left, "pipelined"
            self._transport.write(b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n")


async def main(port: int) -> None:
    server = await asyncio.get_running_loop().create_server(Upload, HOST, port)
    await server.serve_forever()


if __name__ == "__main__":
    uvloop.run(main(int(sys.argv[1])))
