"""Several gateways, as on several machines: real sockets, and mutual TLS with one authority between them."""

import asyncio
import contextlib
import ctypes
import socket
import struct
from collections.abc import AsyncIterator, Sequence
from datetime import UTC, datetime
from pathlib import Path

from activator.frontend.listeners import bind
from activator.frontend.relay_listener import RelayListener
from activator.frontend.relay_server import RelayConnection
from activator.sync.node_certificate import AUTHORITY, CERTIFICATE, KEY, NodeCertificate
from knoll.auth import certificates
from knoll.auth.certificates import Issued
from knoll.messages.endpoints import Endpoint, RevisionEndpoints
from knoll.messages.nodes import Node
from knoll.messages.routing import RequestPolicy
from tests.component.activator.stage import REVISION, App, Stage, staged

SO_ATTACH_FILTER, SO_DETACH_FILTER = 26, 27
BPF_RETURN = 0x06


def new_authority() -> Issued:
    return certificates.new_authority(datetime.now(UTC))


def certify(folder: Path, name: str, authority: Issued, trusted: Issued | None = None) -> Path:
    """Write what a node needs, as `knoll node join` does. Args: trusted: the authority it trusts, if not the issuer."""
    key = certificates.new_key()
    signed = certificates.issue_node(authority, name, certificates.node_request(name, key), datetime.now(UTC))
    write(folder, (trusted or authority).certificate_pem, signed, certificates.key_pem(key))
    return folder


def write(folder: Path, authority: bytes, certificate: bytes, key: bytes) -> None:
    folder.mkdir(exist_ok=True)
    for file, content in ((AUTHORITY, authority), (CERTIFICATE, certificate), (KEY, key)):
        beside = folder / f".{file}"
        beside.write_bytes(content)
        beside.rename(folder / file)


def node(name: str, port: int) -> Node:
    return Node(name, "127.0.0.1", port, 1, cores=2, memory_bytes=1 << 30, version="1")


def drop_input(connection: socket.socket) -> None:
    """Make the kernel drop what arrives for a socket, before TCP acknowledges it (`man 7 socket`, SO_ATTACH_FILTER)."""
    program = ctypes.create_string_buffer(struct.pack("HBBI", BPF_RETURN, 0, 0, 0))
    connection.setsockopt(socket.SOL_SOCKET, SO_ATTACH_FILTER, struct.pack("@HL", 1, ctypes.addressof(program)))


class Machine:
    """One gateway with its relay."""

    def __init__(self, name: str, stage: Stage, folder: Path) -> None:
        self.name, self.stage, self.folder = name, stage, folder
        self.gateway = stage.gateway
        self.gateway.nodes.name = name
        self.certificate = NodeCertificate(folder, self.gateway.nodes)
        self.listener = RelayListener(self.gateway, lambda: self.certificate.accepting)
        self.socket = bind("127.0.0.1", 0)
        self.relay_port = int(self.socket.getsockname()[1])
        self.listener.open([self.socket])

    @property
    def relays(self) -> list[RelayConnection]:
        """Connections of other nodes to it."""
        return [each for each in self.gateway.connections if isinstance(each, RelayConnection)]

    def relayed(self, instance: str, revision: str = REVISION) -> int:
        endpoint = self.gateway.revision(revision).endpoints.get(instance)
        return endpoint.relayed if endpoint is not None else 0

    def in_flight(self, instance: str, revision: str = REVISION) -> int:
        endpoint = self.gateway.revision(revision).endpoints.get(instance)
        return endpoint.in_flight if endpoint is not None else 0


class Machines:
    """All of them; what a test publishes reaches each."""

    def __init__(self, machines: Sequence[Machine], authority: Issued) -> None:
        self.all = list(machines)
        self.authority = authority

    def __getitem__(self, number: int) -> Machine:
        return self.all[number]

    def cut_off(self, machine: Machine) -> None:
        """Drop everything between this machine and the others, without a reset."""
        drop_input(machine.socket)
        for connection in machine.relays:
            drop_input(connection._transport.get_extra_info("socket"))
        for other in self.all:
            relay = other.gateway.nodes.relay(machine.name)
            for upstream in relay._open if relay is not None else ():
                drop_input(upstream._transport.get_extra_info("socket"))

    def heal(self, machine: Machine) -> None:
        """Let new connections through again."""
        machine.socket.setsockopt(socket.SOL_SOCKET, SO_DETACH_FILTER, 0)

    def introduce(self) -> None:
        """Publish the table of nodes."""
        entries = {each.name: node(each.name, each.relay_port) for each in self.all}
        for each in self.all:
            for name, entry in entries.items():
                each.gateway.nodes.change(name, entry)

    def route(self, policy: RequestPolicy | None = None) -> None:
        for each in self.all:
            each.stage.route(policy)

    def endpoints(self, *endpoints: Endpoint) -> None:
        for each in self.all:
            each.gateway.change_endpoints(REVISION, RevisionEndpoints(endpoints))


def on(machine: Machine, app: App, state: str = "ready") -> Endpoint:
    return Endpoint(app.name, "127.0.0.1", app.port, state, None, machine.name)  # type: ignore[arg-type]


@contextlib.asynccontextmanager
async def machines(folder: Path, count: int = 2) -> AsyncIterator[Machines]:
    authority = new_authority()
    async with contextlib.AsyncExitStack() as stack:
        made = []
        for number in range(count):
            stage = await stack.enter_async_context(staged())
            name = f"n{number + 1}"
            machine = Machine(name, stage, certify(folder / name, name, authority))
            stack.push_async_callback(machine.listener.close)
            made.append(machine)
        together = Machines(made, authority)
        together.introduce()
        yield together
        await asyncio.sleep(0)
