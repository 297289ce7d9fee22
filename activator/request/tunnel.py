"""The tunnel of an upgraded connection (101): bytes in both directions, and its end."""

from abc import abstractmethod

from activator.interfaces import Backend
from activator.request.request_body import RequestBody
from activator.request.states import IDLE, TUNNEL, RequestState
from activator.wire.http1_heads import ResponseHead
from activator.wire.websocket import GOING_AWAY, Frames


class Tunnel(RequestBody):
    """The part of an exchange that is in use once protocols were switched."""

    __slots__ = ("endpoint", "frames", "state", "status")

    def __init__(self) -> None:
        super().__init__()
        self.state: RequestState = IDLE
        self.endpoint: Backend | None = None
        self.status = 0
        self.frames: Frames | None = None
        """Frame boundaries of a WebSocket, in the direction of the client."""

    @abstractmethod
    def _finish(self, status: int) -> None:
        """End the exchange."""

    def protocol_switched(self, head: ResponseHead, data: bytes) -> None:
        """101 arrived: bytes pass in both directions from now on. Time-outs stay as they are, as in Knative."""
        self.state = TUNNEL
        self.status = 101
        if self.endpoint is not None:
            self.endpoint.tunnels += 1
        if head.upgrade.lower() == b"websocket":
            self.frames = Frames()
        self.write_informational(head)
        if data:
            self.tunnel_data(data)

    def tunnel_data(self, data: bytes) -> None:
        """Bytes arrived from the instance through the tunnel."""
        if self.frames is not None:
            self.frames.feed(data)
        self.write_tunnel(data)

    def send_close_frame(self) -> None:
        """Send a close frame (1001) to a WebSocket client, unless one was sent or a frame is incomplete."""
        frames = self.frames
        if frames is not None and frames.at_boundary and not frames.closed:
            frames.closed = True
            self.write_tunnel(GOING_AWAY)

    def _close_tunnel(self) -> None:
        """Close the tunnel; with a close frame if the instance is being removed."""
        if self.endpoint is not None and self.endpoint.retired:
            self.send_close_frame()
        self.reset_response()
        self._finish(self.status)

    def tunnel_closed(self) -> None:
        """The instance closed the tunnel."""
        self.upstream = None
        self._close_tunnel()

    def _cancel_upstream(self) -> None:
        upstream, self.upstream = self.upstream, None
        if upstream is not None:
            upstream.cancel()
