"""Parser of Docker's framing of stdout and stderr in one stream. Pure, fed with bytes cut anywhere."""

from autoscaler.runtime.model import LogChunk, LogStream

_HEADER = 8
_STREAMS: dict[int, LogStream] = {0: "stdout", 1: "stdout", 2: "stderr"}


class Demux:
    """Splits the bytes of a multiplexed stream into chunks; a frame is passed on as it arrives, not when complete."""

    def __init__(self) -> None:
        self._header = b""
        self._left = 0
        self._stream: LogStream = "stdout"

    def feed(self, data: bytes) -> list[LogChunk]:
        """Return the chunks in `data`.

        Raises:
            ValueError: the stream is not multiplexed (the container has a terminal).
        """
        chunks: list[LogChunk] = []
        while data:
            if not self._left:
                data = self._take_header(data)
                continue
            part, data = data[: self._left], data[self._left :]
            self._left -= len(part)
            chunks.append(LogChunk(self._stream, part))
        return chunks

    def _take_header(self, data: bytes) -> bytes:
        missing = _HEADER - len(self._header)
        self._header += data[:missing]
        if len(self._header) == _HEADER:
            if self._header[0] not in _STREAMS:
                raise ValueError(f"not a multiplexed stream: frame of type {self._header[0]}")
            self._stream = _STREAMS[self._header[0]]
            self._left = int.from_bytes(self._header[4:], "big")
            self._header = b""
        return data[missing:]
