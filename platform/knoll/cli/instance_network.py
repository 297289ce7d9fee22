"""What instances of `knoll up` reach on this machine, at its address on their network: both gateways, the DNS server.

Ports 53 and 80 want root, or `sysctl net.ipv4.ip_unprivileged_port_start=53`. Where they, or dnsmasq, are not to be
had, the platform runs without cluster-local names in instances, and says so.
"""

import asyncio
import errno
import os
import shutil
import socket
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from knoll.process import dns_server as names_server
from knoll.process.settings import ActivatorSettings

GATEWAY_PORT = 80
"""Of the internal gateway: the addresses of Services inside have no port."""
_SHARED = Path("/run/knoll")
_ANY = ("0.0.0.0", "::")  # noqa: S104 - compared with, not listened on


@dataclass(frozen=True, slots=True)
class Inside:
    """How the processes are to be started."""

    environment: Mapping[str, str]
    """Added to that of all processes."""
    gateways: tuple[str, ...] = ()
    """`address:port` of the gateways, as instances reach them."""
    names_server: tuple[str, ...] = ()
    """Command of the DNS server; empty for none."""
    warning: str = ""
    """What instances have to do without, and how to mend it."""


async def look(environment: Mapping[str, str], folder: Path) -> Inside:
    """Find out what there is for instances to reach.

    Args:
        environment: of the platform's processes.
        folder: for the files of names; see `make_folder`.
    """
    address, problem = await _address(environment)
    if not address:
        return Inside({}, warning=_without(problem))
    ports = [int(port) for port in environment["KNOLL_ACTIVATOR_PORTS"].split(",")]
    ports += [int(port) for port in environment["KNOLL_ACTIVATOR_TLS_PORTS"].split(",") if port]
    hosts = ActivatorSettings.read().activator_host
    found, gateways = {}, []
    if not any(host in _ANY for host in hosts.split(",")) and not any(_cannot(address, port) for port in ports):
        found["KNOLL_ACTIVATOR_HOST"] = f"{hosts},{address}"
    if any(host in (*_ANY, address) for host in found.get("KNOLL_ACTIVATOR_HOST", hosts).split(",")):
        gateways = [f"{address}:{port}" for port in ports]
    problem = names_server.MISSING if names_server.program() is None else ""
    problem = problem or _cannot(address, GATEWAY_PORT) or _cannot(address, names_server.PORT, udp=True)
    if problem:
        return Inside(found, tuple(gateways), warning=_without(problem))
    found |= {
        "KNOLL_ACTIVATOR_LOCAL_HOST": address,
        "KNOLL_ACTIVATOR_LOCAL_PORTS": str(GATEWAY_PORT),
        "KNOLL_NAMES_DIR": str(folder),
        "KNOLL_INSTANCE_DNS": address,
    }
    gateways.append(f"{address}:{GATEWAY_PORT}")
    return Inside(found, tuple(gateways), (*_as_nobody(), *names_server.command(folder, address)))


def make_folder(platform: str, data: Path) -> Path:
    """Where the files of names are. For root not among its own: the DNS server then runs as nobody, and reads them."""
    if os.geteuid():
        folder = data.resolve() / "names"
        folder.mkdir(exist_ok=True)
        return folder
    for folder in (_SHARED, _SHARED / platform):
        folder.mkdir(exist_ok=True)
        folder.chmod(0o755)  # whatever the umask
    return folder


async def _address(environment: Mapping[str, str]) -> tuple[str, str]:
    """This machine's address on the instance network, or why there is none."""
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-m", "autoscaler", "--network",
        env={**os.environ, **environment}, stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.PIPE,
    )  # fmt: skip
    told, complaint = await process.communicate()
    if process.returncode:
        return "", complaint.decode(errors="replace").strip()[-500:]
    return told.decode().strip(), ""


def _as_nobody() -> tuple[str, ...]:
    """What a command is run by, so that root's process is nobody's, with the one right that it needs.

    A program that gives its rights away by itself no longer ends with its parent: the kernel forgets that it should.
    """
    if os.geteuid() or shutil.which("setpriv") is None:
        return ()
    right = "-all,+net_bind_service"
    return (
        "setpriv", "--reuid=65534", "--regid=65534", "--clear-groups", f"--inh-caps={right}",
        f"--ambient-caps={right}", f"--bounding-set={right}", "--no-new-privs", "--pdeathsig=KILL",
    )  # fmt: skip


def _cannot(address: str, port: int, *, udp: bool = False) -> str:
    """Why nobody could listen there; empty when somebody can."""
    family = socket.AF_INET6 if ":" in address else socket.AF_INET
    with socket.socket(family, socket.SOCK_DGRAM if udp else socket.SOCK_STREAM) as tried:
        if not udp:
            tried.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            tried.bind((address, port))
        except OSError as error:
            hint = (
                "run it as root, or allow it with: sysctl net.ipv4.ip_unprivileged_port_start=53"
                if error.errno == errno.EACCES
                else "end what listens on that port on all addresses"
                if error.errno == errno.EADDRINUSE
                else "is the engine on another machine?"
            )
            return f"cannot listen on {address}:{port}: {error.strerror} ({hint})"
    return ""


def _without(problem: str) -> str:
    return f"instances do without cluster-local names such as NAME.NAMESPACE.svc.cluster.local: {problem}"
