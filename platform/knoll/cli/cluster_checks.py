"""The checks of `knoll doctor` for a platform on several machines."""

import contextlib
import http.client
import os
import socket
import ssl
from collections.abc import Iterator, Mapping, Sequence
from datetime import datetime, timedelta
from email.utils import parsedate_to_datetime
from pathlib import Path

from cryptography import x509

from knoll import __version__
from knoll.auth import certificates
from knoll.cli.cluster import GOSSIP_PORT, HEARTBEAT
from knoll.cluster import bundle, engine_cli
from knoll.cluster.engine_cli import EngineError
from knoll.values.json import Json
from knoll.values.node import NODE
from knoll.values.versions import HOW, are_compatible

Result = tuple[bool, str, str]
"""Whether the check passed, the state, and a suggested fix."""

CLOCK_SECONDS = 5.0
"""Larger differences of clocks are reported; certificates tolerate five minutes, leases and logs less."""
CONNECT_SECONDS = 3.0
_RENEWAL_TAKES = timedelta(days=2)
"""Renewal is tried every hour; a certificate that is overdue for longer is reported."""


def is_cluster(nodes: Sequence[Json]) -> bool:
    """Return whether these are the Nodes of a platform on several machines."""
    return any(body["metadata"]["name"] != NODE for body in nodes)


def states(nodes: Sequence[Json]) -> Iterator[Result]:
    """Yield whether each machine reports that it is ready."""
    for body in nodes:
        name = body["metadata"]["name"]
        conditions = (body.get("status") or {}).get("conditions") or ()
        ready = next((each for each in conditions if each["type"] == "Ready"), {"status": "Unknown"})
        if ready["status"] == "True":
            yield True, f"{name} is ready", ""
        else:
            fix = f"start it, or remove it: `knoll node rm {name}`"
            yield False, f"{name} is not ready since {ready.get('lastTransitionTime', 'it joined')}", fix


def versions(nodes: Sequence[Json], own: str = f"v{__version__}") -> Result:
    """Return whether all machines run one minor version, or two consecutive ones.

    Args: own: version of this command, which is that of the images to which the machines can be upgraded next.
    """
    by_version: dict[str, list[str]] = {}
    for body in nodes:
        version = ((body.get("status") or {}).get("nodeInfo") or {}).get("kubeletVersion", "")
        by_version.setdefault(version, []).append(body["metadata"]["name"])
    state = ", ".join(f"{version or 'unknown'}: {' '.join(names)}" for version, names in sorted(by_version.items()))
    if not are_compatible(*by_version):
        return False, state, HOW
    if not are_compatible(own, *by_version):
        return False, f"{state}; this command is {own}", HOW
    return True, state, "finish the upgrade: all machines should run one version" if len(by_version) > 1 else ""


def engine(info: Json, swarm: Json | None) -> Iterator[Result]:
    """Yield whether the engine's settings suit a cluster.

    Args:
        info: reply of `GET /info`.
        swarm: reply of `GET /swarm`; None if the engine is not a Swarm manager.
    """
    if info.get("LiveRestoreEnabled"):
        fix = 'remove "live-restore" from /etc/docker/daemon.json and restart Docker'
        yield False, "live-restore is on: engines of a cluster do not support it", fix
    if (info.get("Swarm") or {}).get("LocalNodeState") != "active":
        yield False, "the engine is in no cluster", "join again with the command that `knoll node join-command` prints"
    if swarm is not None:
        period = ((swarm.get("Spec") or {}).get("Dispatcher") or {}).get("HeartbeatPeriod", 0) / 1e9
        good = 0 < period <= 1
        fix = (
            "" if good else f"lost machines are noticed late: `docker swarm update --dispatcher-heartbeat {HEARTBEAT}`"
        )
        yield good, f"heartbeat of the engines' cluster every {period:g} s", fix


def addresses(nodes: Sequence[Json]) -> Iterator[tuple[str, str]]:
    """Yield name and address of each machine."""
    for body in nodes:
        for address in (body.get("status") or {}).get("addresses") or ():
            if address["type"] == "InternalIP":
                yield body["metadata"]["name"], address["address"]


def platform_settings() -> dict[str, str]:
    """Return the settings of the platform that runs here with Compose; its environment comes before its `.env`."""
    written: dict[str, str] = {}
    with contextlib.suppress(EngineError, OSError, ValueError):
        folder = engine_cli.project_folder(os.environ.get("KNOLL_PLATFORM") or "knoll")
        written = bundle.parse_dotenv(Path(folder, ".env").read_text()) if folder else {}
    return {**written, **{name: os.environ[name] for name in bundle.DEFAULT_PORTS if os.environ.get(name)}}


def ports(settings: Mapping[str, str]) -> tuple[int, ...]:
    """Return the TCP ports that each machine has for the others. Args: settings: of one machine; all share them."""
    return bundle.port(settings, "KNOLL_AGENT_PORT"), bundle.port(settings, "KNOLL_RELAY_PORT"), GOSSIP_PORT


def reached(name: str, address: str, ports: Sequence[int]) -> Iterator[Result]:
    """Yield for each port of a machine whether this machine reaches it."""
    for port in ports:
        try:
            socket.create_connection((address, port), CONNECT_SECONDS).close()
        except OSError as error:
            fix = f"open the port for the other machines in {name}'s firewall, or start the platform there"
            yield False, f"{name}, {address}:{port}: {error.strerror or error}", fix
        else:
            yield True, f"{name}, {address}:{port} responds", ""


def clock(name: str, address: str, port: int, now: float) -> Result | None:
    """Return whether a machine's clock agrees with this one's; None if its API does not report the time.

    Args: now: epoch seconds.
    """
    connection = http.client.HTTPSConnection(address, port, timeout=CONNECT_SECONDS, context=_unverified())
    try:
        connection.request("GET", "/version")
        date = connection.getresponse().getheader("Date")
        theirs = parsedate_to_datetime(date).timestamp() if date else None
    except (OSError, http.client.HTTPException, ValueError):
        return None
    finally:
        connection.close()
    if theirs is None:
        return None
    difference = abs(theirs - now)
    if difference <= CLOCK_SECONDS:
        return True, f"{name}'s clock agrees", ""
    return False, f"{name}'s clock differs by {difference:.0f} s", "synchronise the clocks, for example with chrony"


def certificate(name: str, address: str, port: int, now: datetime) -> Result | None:
    """Return whether a machine's certificate is its own and was renewed; None if the port does not respond.

    Args:
        port: of its agent or relay, which sends its certificate before it asks for this machine's.
        now: with a time zone.
    """
    try:
        with socket.create_connection((address, port), CONNECT_SECONDS) as raw, _unverified().wrap_socket(raw) as tls:
            content = tls.getpeercert(binary_form=True) or b""
        issued = x509.load_der_x509_certificate(content)
    except (OSError, ValueError):
        return None
    owner, days = certificates.node_name(issued), (issued.not_valid_after_utc - now).days
    if owner != name:
        fix = f"give {name} its own address: `knoll node ls` shows the addresses of all machines"
        return False, f"{address}:{port} has the certificate of {owner or 'no machine'}, not of {name}", fix
    if issued.not_valid_after_utc - now < certificates.NODE_RENEWED_BEFORE - _RENEWAL_TAKES:
        fix = f"it should have been renewed: see `docker compose logs agent` on {name}"
        return (
            False,
            f"{name}'s certificate ends in {days} days" if days >= 0 else f"{name}'s certificate has ended",
            fix,
        )
    return True, f"{name}'s certificate is valid for {days} days", ""


def swarm_members(members: Sequence[Json], nodes: Sequence[Json]) -> Iterator[Result]:
    """Yield whether the Swarm has enough managers, and the same machines as the platform.

    Args:
        members: reply of `GET /nodes` of a Swarm manager.
        nodes: Nodes of the platform.
    """
    managers = [each for each in members if each["Spec"]["Role"] == "manager"]
    reachable = [each for each in managers if (each.get("ManagerStatus") or {}).get("Reachability") == "reachable"]
    needed = len(managers) // 2 + 1
    state = f"{len(reachable)} of {len(managers)} managers of the Swarm respond, {needed} are needed to place instances"
    fix = "" if len(reachable) == len(managers) else "start the others, or `docker node demote` those that are gone"
    if not fix and len(managers) == 2:
        fix = "two managers are no safer than one: if either is lost, nothing is placed; use one or three"
    yield len(reachable) == len(managers), state, fix
    by_id = {each["ID"]: each for each in members}
    for body in nodes:
        engine_id = str((body.get("spec") or {}).get("providerID", "")).removeprefix("docker://")
        member, name = by_id.pop(engine_id, None), body["metadata"]["name"]
        if member is None:
            fix = f"run the command of `knoll node join-command` on {name} again, and restart its autoscaler"
            yield False, f"{name} is not in the Swarm, so no instance is placed on it", fix
        elif member["Status"]["State"] != "ready":
            fix = f"check Docker on {name}, and the ports 2377 and 7946 between the machines"
            yield False, f"{name} is {member['Status']['State']} in the Swarm", fix
    for engine_id, member in by_id.items():
        host = (member.get("Description") or {}).get("Hostname") or engine_id
        if member["Status"]["State"] == "down":
            fix = f"remove it: `docker node rm {engine_id}`"
            yield True, f"{host} is down in the Swarm and is no machine of the platform", fix


def _unverified() -> ssl.SSLContext:
    """A context that accepts any certificate: only what the other side shows is read."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
    return context
