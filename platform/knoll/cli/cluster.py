"""`knoll cluster`: makes a platform on one machine the first machine of several."""

import errno
import socket
import tempfile
import time
from collections.abc import Iterator, Mapping
from ipaddress import ip_address
from pathlib import Path

import click

from knoll.auth import join_tokens
from knoll.auth.join_tokens import JoinToken
from knoll.cli.client import ApiClient
from knoll.cli.connection import client_options
from knoll.cluster import bundle, engine_cli, joining
from knoll.cluster.managers import MANAGER
from knoll.cluster.node_folder import NodeFolder
from knoll.values import kinds
from knoll.values.errors import BadRequestError, ConflictError, KnollError
from knoll.values.json import Json
from knoll.values.node import NODE

HEARTBEAT = "1s"
"""Heartbeat interval of Docker Swarm: a lost machine is detected after about three of them."""
SWARM_PORT, GOSSIP_PORT = 2377, 7946
LOOPBACK = "127.0.0.1"
"""Where the engine reaches the platform's registry."""

platform_option = click.option(
    "--platform", envvar="KNOLL_PLATFORM", default="knoll", show_default=True, help="Name of the platform."
)


class ClusterError(KnollError):
    """This machine cannot be one of several; the message lists all reasons."""


@click.group()
def cluster() -> None:
    """Run the platform on several machines."""


@cluster.command()
@click.option("--address", help="IP address at which other machines reach this one.  [default: the route's]")
@click.option("--name", help="Name of this machine.  [default: its host name]")
@platform_option
@client_options
def init(address: str | None, name: str | None, platform: str, client: ApiClient, namespace: str) -> None:
    """Make the platform that runs here with Compose the first machine of a cluster.

    Objects and running instances are kept. Everything is checked before anything changes.
    """
    engine = engine_cli.info()
    folder = engine_cli.project_folder(platform)
    name = name or default_name()
    address = address or default_address()
    env = Path(folder, ".env")
    before = bundle.parse_dotenv(env.read_text()) if folder and env.exists() else {}
    problems = [*platform_problems(folder, platform, before), *engine_cli.swarm_problems(engine)]
    problems += [*name_problems(name), *bind_problems(address, before), *address_problems(address, engine, before)]
    if problems:
        raise ClusterError("\n  - ".join(["this machine cannot become the first of several:", *problems]))
    _init_swarm(engine, address)
    image = before.get("KNOLL_IMAGE") or "knoll"
    engine_cli.write_volume(image, platform, "node", _certified(client, name, address, before))
    text = env.read_text() if env.exists() else ""
    env.with_name(bundle.SINGLE_MACHINE_ENV).write_text(text)
    env.write_text(bundle.changed_dotenv(text, bundle.first_settings(name, address, before)))
    click.echo(f"settings written to {env}; starting the platform as node {name} ({address})")
    engine_cli.start_platform(folder)
    click.echo("ready. `knoll node join-command` prints the command that adds a machine")


def default_name() -> str:
    """Return the host name of this machine as a name of a node."""
    return socket.gethostname().partition(".")[0].lower().replace("_", "-")


def default_address() -> str:
    """Return the address from which this machine reaches others. Raises: BadRequestError."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
        try:
            probe.connect(("192.0.2.1", 9))  # an address for documentation; connecting a UDP socket sends nothing
            return str(probe.getsockname()[0])
        except OSError:
            raise BadRequestError("this machine has no route to others: pass its address with --address") from None


def platform_problems(folder: str, platform: str, before: Mapping[str, str]) -> Iterator[str]:
    """Yield why a platform cannot become the first machine.

    Args:
        folder: folder of its Compose project; empty if there is none.
        before: its present settings.
    """
    if not folder:
        yield (
            f"no platform {platform!r} runs here with Compose: start it with `docker compose up --detach --wait` "
            "(a cluster needs the platform in containers, not `knoll up`)"
        )
        return
    if before.get("KNOLL_NODE"):
        yield f"it is the node {before['KNOLL_NODE']} already ({folder}/.env): use `knoll node join-command`"
    for file in bundle.FILES:
        if not Path(folder, file).is_file():
            yield f"{folder} has no {file}: update the platform's folder to this version"


def name_problems(name: str) -> Iterator[str]:
    """Yield why a name is not valid for a node."""
    if not bundle.NODE_NAME.fullmatch(name) or name == NODE:
        yield (
            f"{name!r} is not a valid name: at most 52 lower-case letters, digits, dots and hyphens, and not {NODE!r}; "
            "pass another with --name"
        )


def address_problems(address: str, engine: Json, settings: Mapping[str, str]) -> Iterator[str]:
    """Yield why the other machines could not reach this one at an address.

    Args: settings: of the platform here, with its ports; None before a machine that joins has received them.
    """
    try:
        parsed = ip_address(address)
    except ValueError:
        yield f"{address!r} is not an IP address: pass one with --address"
        return
    if parsed.is_loopback or parsed.is_unspecified or parsed.is_multicast or parsed.is_link_local:
        yield f"{address} cannot be reached from other machines: pass another address with --address"
        return
    for port, udp in _ports(engine, settings):
        if problem := port_problem(address, port, udp=udp):
            yield problem
    registry_port = bundle.port(settings, "KNOLL_REGISTRY_PORT")
    if settings.get("KNOLL_REGISTRY") and (problem := port_problem(LOOPBACK, registry_port)):
        yield problem


def bind_problems(address: str, settings: Mapping[str, str]) -> Iterator[str]:
    """Yield why the other machines could not reach the API of the first one at its address."""
    bind = settings.get("KNOLL_BIND", "")
    if not bind or bind == address or bind in ("0.0.0.0", "::"):  # noqa: S104 - read, not listened on
        return
    yield (
        f"KNOLL_BIND={bind}: other machines reach the API at {address} only: set it to {address} or remove it, in .env"
    )


def _ports(engine: Json, settings: Mapping[str, str]) -> Iterator[tuple[int, bool]]:
    """Yield each port on which the machine will listen and does not yet, and whether it is a UDP port."""
    if (engine.get("Swarm") or {}).get("LocalNodeState") != "active":
        yield from ((SWARM_PORT, False), (GOSSIP_PORT, False), (GOSSIP_PORT, True))
    names = ["KNOLL_AGENT_PORT", "KNOLL_RELAY_PORT"]
    if (settings.get("KNOLL_BIND") or "127.0.0.1") == "127.0.0.1":  # otherwise the platform listens on them already
        names += ["KNOLL_API_TLS_PORT", "KNOLL_HTTP_PORT", "KNOLL_HTTPS_PORT"]
    yield from ((bundle.port(settings, name), False) for name in names)


def port_problem(address: str, port: int, *, udp: bool = False) -> str:
    """Return why a process could not listen on a port of an address; empty if it could."""
    family = socket.AF_INET6 if ":" in address else socket.AF_INET
    with socket.socket(family, socket.SOCK_DGRAM if udp else socket.SOCK_STREAM) as probe:
        if not udp:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((address, port))
        except OSError as error:
            if error.errno == errno.EADDRNOTAVAIL:
                return f"{address} is not an address of this machine: pass another with --address"
            kind, option = ("/udp", "-lunp") if udp else ("", "-ltnp")
            return (
                f"{address}:{port}{kind} cannot be used ({error.strerror}): `ss {option} 'sport = :{port}'` shows the "
                "process"
            )
    return ""


def _init_swarm(engine: Json, address: str) -> None:
    swarm = engine.get("Swarm") or {}
    if swarm.get("LocalNodeState") != "active":
        host = f"[{address}]" if ":" in address else address
        engine_cli.run("swarm", "init", "--advertise-addr", address, "--listen-addr", f"{host}:{SWARM_PORT}")
    elif not swarm.get("ControlAvailable"):
        raise ConflictError("the engine is a worker of a cluster: the first machine of a platform has to manage it")
    engine_cli.run("swarm", "update", "--dispatcher-heartbeat", HEARTBEAT)


def _certified(client: ApiClient, name: str, address: str, settings: Mapping[str, str]) -> dict[str, bytes]:
    """Return the files of this machine's certificate, and the list of managers, which has this one."""
    host = settings.get("KNOLL_BIND") or "127.0.0.1"
    if ip_address(host).is_unspecified:
        host = "127.0.0.1"
    server = f"https://{f'[{host}]' if ':' in host else host}:{bundle.port(settings, 'KNOLL_API_TLS_PORT')}"
    token = JoinToken.fresh()
    store_token(client, token, token.data(b"", time.time() + 300, "", role=MANAGER))
    try:
        with tempfile.TemporaryDirectory() as path:
            folder = NodeFolder(Path(path))
            joining.join(server, joining.pin_of_server(server), token, name, folder, address)
            return folder.files()
    finally:
        client.delete(kinds.SECRET, join_tokens.NAMESPACE, token.object_name)


def store_token(client: ApiClient, token: JoinToken, data: Mapping[str, str]) -> None:
    """Store a join token, which makes it valid."""
    body = {
        "apiVersion": "v1",
        "kind": "Secret",
        "type": join_tokens.SECRET_TYPE,
        "metadata": {"name": token.object_name},
        "data": dict(data),
    }
    client.create(kinds.SECRET, join_tokens.NAMESPACE, body)
