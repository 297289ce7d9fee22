"""Connections of other nodes. Each request names the instance of this node that it is for: see `wire.relay_lines`.

The node where a request arrived routes, queues, logs and counts it, adds forwarding fields and watches its time-outs.
Here it takes a slot of its instance, or is returned at once.
"""

import asyncio
from typing import cast

import structlog

from activator.backend.nodes import node_is_busier
from activator.frontend.http1_server import Http1Connection, peer_address
from activator.interfaces import UpstreamConnection
from activator.request.states import IDLE, SENT, TUNNEL
from activator.wire.callback_guard import guarded
from activator.wire.forwarding import Peer
from activator.wire.http1_heads import MAX_CACHED_HEAD, MAX_HEAD, HeadError
from activator.wire.http1_parser import read_request
from activator.wire.node_socket import SILENT_SECONDS, prepare, silent_seconds
from activator.wire.relay_lines import MAX_LINE, Mode, Target, Verb, parse_request, statement
from knoll.auth.node_identity import node_name
from knoll.values import versions

log = structlog.get_logger()

_MAX_MESSAGE = MAX_LINE + 2 * MAX_HEAD
"""Bytes of the line and the head, which contains forwarding fields in addition to the client's fields."""


class RelayConnection(Http1Connection):
    """One connection; implements `slot_sharing.RelayWaiter`."""

    __slots__ = ("_held", "_retiring", "node")

    node: str
    """The node at the other end."""
    _held: bool
    """Whether the other node holds the body of the request until it gets `granted`."""

    # --- the connection

    @guarded
    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.Transport, transport)
        self._write = self._transport.write
        self._peer = Peer(peer_address(transport.get_extra_info("peername")), b"https")
        self._last_activity = self._last_progress = self.proxy.time()
        self.proxy.add_connection(self)
        tls = transport.get_extra_info("ssl_object")
        self.node = node_name(tls.getpeercert()) if tls is not None else ""
        self._expects_plain = self._retiring = False
        reason = ""
        if not self.node:
            reason = "it has no node's certificate"
        elif tls is not None and tls.selected_alpn_protocol() is None:
            reason = f"its version is not one that this node accepts; {versions.HOW}"
        if reason:
            log.warning("relay connection rejected", client=self._peer.address.decode(), node=self.node, reason=reason)
            self._transport.abort()
        else:
            prepare(transport)
            self._write(statement(Verb.READY))

    def retire(self) -> None:
        """Take no more requests, because the worker drains. Called repeatedly until the connection has ended.

        The other node closes the connection: if this one did, a request in transit would be lost.
        """
        self._retiring = True
        if self.is_idle:
            self._write(statement(Verb.CLOSING))
            self.discard_input()

    def node_removed(self) -> None:
        """End if the other machine is silent, so that its requests hold no slots; otherwise take no more requests."""
        if silent_seconds(self._transport) >= SILENT_SECONDS:
            self._transport.abort()
        else:
            self.retire()

    def offer(self, revision: str, instance: str) -> bool:
        """See `RelayWaiter`."""
        if not self.is_idle or self._transport.is_closing():
            return False
        self._write(statement(Verb.FREE, f"{revision} {instance}"))
        return True

    # --- reading requests

    def _read_head(self, data: bytes) -> None:
        if self._buffer:
            data, self._buffer = self._buffer + data, b""
        else:
            self._last_activity = self.proxy.time()
        line, end_of_line, _ = data[:MAX_LINE].partition(b"\r\n")
        target = parse_request(line) if end_of_line else None
        if target is not None and target.mode is Mode.DECLINED:
            self._declined(target)
            if len(data) > len(line) + 2:
                self._read_head(data[len(line) + 2 :])
            return
        end = data.find(b"\r\n\r\n", 0, _MAX_MESSAGE) + 4
        if target is None and (end_of_line or len(data) >= MAX_LINE):
            self._reject_message("it names no instance")
            return
        if target is None or end < 4:
            self._buffer = data
            if len(data) >= _MAX_MESSAGE:
                self._reject_message("its head is too long")
            return
        wire = data[len(line) + 2 : end]
        try:
            head = read_request(wire, "allow")
        except HeadError as error:
            self._reject_message(str(error))
            return
        head.relayed = target
        head.wire = data[:end]
        self.head, self.outgoing = head, wire
        if end <= MAX_CACHED_HEAD:
            self._last_head, self._last_outgoing = head, wire
        self._start(head, data[end:])

    def _declined(self, target: Target) -> None:
        """Handle that the node has no request for the slot that it was offered."""
        revision = self.proxy.revisions.get(target.revision)
        if revision is not None:
            revision.stop_awaiting(self)
            revision.dispatch()

    def _reject_message(self, reason: str) -> None:
        log.error("relayed request rejected", node=self.node, reason=reason)
        self._transport.abort()

    # --- see Exchange

    def begin(self) -> None:
        """Take a slot of the instance, or return the request to its node."""
        target = self.head.relayed
        assert target is not None
        self._held = target.mode is Mode.HELD
        self.status = self.size = 0
        revision = self.proxy.revisions.get(target.revision)
        endpoint = revision.endpoints.get(target.instance) if revision is not None else None
        if self._retiring:
            self._write(statement(Verb.CLOSING))
            self.discard_input()
        elif revision is None or endpoint is None or endpoint.node or not revision.routes:
            # Without routes, this worker does not have the policy of the revision, and so not its limit.
            self._give_back(Verb.GONE)
        elif self.node not in self.proxy.nodes.members:
            self._give_back(Verb.GONE)  # the node was removed, but its certificate is still valid
        elif endpoint.take_slot():
            endpoint.relayed += 1
            revision.stop_awaiting(self)
            self.revision, self.endpoint, self.state = revision, endpoint, SENT
            if endpoint.load_is_due(self.node, self.proxy.time()):
                self._write(statement(Verb.LOAD, str(endpoint.in_flight)))
                node_is_busier(revision.endpoints.values(), self.node, endpoint.in_flight)
            endpoint.forward(self)
        else:
            revision.await_slot(self, target.instance)
            self._give_back(Verb.BUSY)

    def _give_back(self, verb: Verb, reason: str = "") -> None:
        """Return the request to its node; it was not forwarded."""
        self._write(statement(verb, reason))
        if self._held:
            self.skip_body()
        self._finish(0)

    def send_pending_body(self, upstream: UpstreamConnection) -> None:
        if self._held:
            self._held = False
            self._write(statement(Verb.GRANTED))
        super().send_pending_body(upstream)

    def connection_refused(self, error: Exception) -> None:
        target = self.head.relayed
        assert target is not None
        if target.mode is Mode.HELD and not self._held:  # its body was sent, so the other node cannot send it elsewhere
            self._fail(502, f"the instance cannot be reached: {error or 'timed out'}")
        else:
            self._give_back(Verb.REFUSED, str(error) or "timed out")

    def _finish(self, status: int) -> None:
        """Release the slot and reset the state; nothing is counted here."""
        tunnel, self.state = self.state is TUNNEL, IDLE
        self.generation += 1
        if self.upstream is not None:
            self._cancel_upstream()
        endpoint = self.endpoint
        if endpoint is not None:
            self.endpoint = None
            endpoint.relayed -= 1
            if tunnel:
                endpoint.tunnels -= 1
                self.frames = None
            self.revision.release(endpoint)
        self.pending, self.pending_size, self.trailers = [], 0, b""
        self._resent = False
        self.finished()
