"""What instances of `knoll up` can reach at this machine's address on their network: both gateways and the DNS server.

Ports 53 and 80 need root, or `sysctl net.ipv4.ip_unprivileged_port_start=53`. Without them, or without dnsmasq, the
platform runs without cluster-local names in instances and prints a warning.
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

from knoll.process import dns_server
from knoll.process.settings import ActivatorSettings

GATEWAY_PORT = 80
"""Port of the internal gateway: cluster-local addresses of Services have no port."""
_SHARED = Path("/run/knoll")
_ANY = ("0.0.0.0", "::")  # noqa: S104 - compared with, not listened on


@dataclass(frozen=True, slots=True)
class InstanceNetwork:
    """How to start the processes so that instances reach them."""

    environment: Mapping[str, str]
    """Variables to add to the environment of all processes."""
    gateways: tuple[str, ...] = ()
    """`address:port` of the gateways, as instances reach them."""
    dns_command: tuple[str, ...] = ()
    """Command that starts the DNS server; empty for none."""
    warning: str = ""
    """What is not available to instances, and how to fix it; empty if everything is."""


async def inspect(environment: Mapping[str, str], folder: Path) -> InstanceNetwork:
    """Determine what instances can reach on this machine.

    Args:
        environment: of the platform's processes.
        folder: of the DNS server's host files; see `make_folder`.
    """
    address, problem = await _address(environment)
    if not address:
        return InstanceNetwork({}, warning=_without_names(problem))
    ports = [int(port) for port in environment["KNOLL_ACTIVATOR_PORTS"].split(",")]
    ports += [int(port) for port in environment["KNOLL_ACTIVATOR_TLS_PORTS"].split(",") if port]
    hosts = ActivatorSettings.read().activator_host
    settings, gateways = {}, []
    if not any(host in _ANY for host in hosts.split(",")) and not any(_bind_problem(address, port) for port in ports):
        settings["KNOLL_ACTIVATOR_HOST"] = f"{hosts},{address}"
    if any(host in (*_ANY, address) for host in settings.get("KNOLL_ACTIVATOR_HOST", hosts).split(",")):
        gateways = [f"{address}:{port}" for port in ports]
    problem = dns_server.MISSING if dns_server.program() is None else ""
    problem = problem or _bind_problem(address, GATEWAY_PORT) or _bind_problem(address, dns_server.PORT, udp=True)
    if problem:
        return InstanceNetwork(settings, tuple(gateways), warning=_without_names(problem))
    settings |= {
        "KNOLL_ACTIVATOR_LOCAL_HOST": address,
        "KNOLL_ACTIVATOR_LOCAL_PORTS": str(GATEWAY_PORT),
        "KNOLL_NAMES_DIR": str(folder),
        "KNOLL_INSTANCE_DNS": address,
    }
    gateways.append(f"{address}:{GATEWAY_PORT}")
    return InstanceNetwork(settings, tuple(gateways), (*_unprivileged(), *dns_server.command(folder, address)))


def make_folder(platform: str, data: Path) -> Path:
    """Create the folder of the DNS server's host files.

    For root it is outside root's own folders, because the DNS server then runs as an unprivileged user.
    """
    if os.geteuid():
        folder = data.resolve() / "names"
        folder.mkdir(exist_ok=True)
        return folder
    for folder in (_SHARED, _SHARED / platform):
        folder.mkdir(exist_ok=True)
        folder.chmod(0o755)  # independent of the umask
    return folder


async def _address(environment: Mapping[str, str]) -> tuple[str, str]:
    """Return this machine's address on the instance network and "", or "" and the reason there is none."""
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-m", "autoscaler", "--network",
        env={**os.environ, **environment}, stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.PIPE,
    )  # fmt: skip
    output, errors = await process.communicate()
    if process.returncode:
        return "", errors.decode(errors="replace").strip()[-500:]
    return output.decode().strip(), ""


def _unprivileged() -> tuple[str, ...]:
    """Return the command prefix that drops root's privileges except binding low ports; empty for other users.

    A program that drops them itself no longer ends with its parent: the kernel resets its death signal.
    """
    if os.geteuid() or shutil.which("setpriv") is None:
        return ()
    capabilities = "-all,+net_bind_service"
    return (
        "setpriv", "--reuid=65534", "--regid=65534", "--clear-groups", f"--inh-caps={capabilities}",
        f"--ambient-caps={capabilities}", f"--bounding-set={capabilities}", "--no-new-privs", "--pdeathsig=KILL",
    )  # fmt: skip


def _bind_problem(address: str, port: int, *, udp: bool = False) -> str:
    """Return why a process cannot listen there; empty if it can."""
    family = socket.AF_INET6 if ":" in address else socket.AF_INET
    with socket.socket(family, socket.SOCK_DGRAM if udp else socket.SOCK_STREAM) as probe:
        if not udp:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((address, port))
        except OSError as error:
            hint = (
                "run it as root, or allow it with: sysctl net.ipv4.ip_unprivileged_port_start=53"
                if error.errno == errno.EACCES
                else "stop the process that listens on that port on all addresses"
                if error.errno == errno.EADDRINUSE
                else "is the engine on another machine?"
            )
            return f"cannot listen on {address}:{port}: {error.strerror} ({hint})"
    return ""


def _without_names(problem: str) -> str:
    return f"cluster-local names such as NAME.NAMESPACE.svc.cluster.local are disabled in instances: {problem}"
