"""Frame boundaries of a WebSocket (RFC 6455 §5.2), so that a close frame can be inserted between frames. Pure."""

GOING_AWAY = b"\x88\x02\x03\xe9"
"""A complete close frame of a server: 1001, "a server going down" (RFC 6455 §7.4.1)."""
_CLOSE = 0x8


class Frames:
    """Follows the frames of one direction; keeps no bytes but an incomplete frame head."""

    __slots__ = ("_head", "_left", "closed")

    def __init__(self) -> None:
        self.closed = False
        """A close frame was started: nothing may follow it."""
        self._head = b""
        self._left = 0

    @property
    def at_boundary(self) -> bool:
        """Whether a frame may start with the next byte."""
        return not self._left and not self._head

    def feed(self, data: bytes) -> None:
        """Process the next bytes."""
        at, size = 0, len(data)
        while at < size:
            if not self._left and not self._head and at + 1 < size and data[at + 1] < 126:
                # A complete head of a short frame: thousands of them in one read must not block the loop.
                self.closed = self.closed or data[at] & 0x0F == _CLOSE
                at += 2 + data[at + 1]
                self._left = max(0, at - size)
                continue
            if self._left:
                step = min(self._left, size - at)
                self._left -= step
                at += step
                continue
            need = _head_size(self._head)
            step = need - len(self._head)
            self._head += data[at : at + step]
            at += step
            if len(self._head) == _head_size(self._head):
                self.closed = self.closed or self._head[0] & 0x0F == _CLOSE
                self._left = _length(self._head)
                self._head = b""


def _head_size(head: bytes) -> int:
    """Return the size of a frame's head, from its first two bytes."""
    if len(head) < 2:
        return 2
    short = head[1] & 0x7F
    return 2 + (8 if short == 127 else 2 if short == 126 else 0) + (4 if head[1] & 0x80 else 0)


def _length(head: bytes) -> int:
    short = head[1] & 0x7F
    return int.from_bytes(head[2:10] if short == 127 else head[2:4]) if short > 125 else short
