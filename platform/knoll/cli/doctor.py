"""Commands about this machine: doctor, completion."""

import asyncio
import contextlib
import http.client
import importlib.util
import json
import os
import pwd
import shutil
import socket
import subprocess
import time
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import click
import httpx
from click.shell_completion import get_completion_class
from rich.console import Console

from knoll.auth.tenancy import OWNER_BINDING
from knoll.cli import cluster_checks, isolation, running
from knoll.cli.client import DEFAULT_SERVER
from knoll.cli.output import output_option, show
from knoll.cli.state_folder import data_folder
from knoll.cluster import bundle
from knoll.firewall import nft
from knoll.process import dns_server
from knoll.process.disk import free_bytes, of_engine
from knoll.process.settings import AutoscalerSettings, BuilderSettings, CommonSettings
from knoll.redis import address
from knoll.redis.client import connected
from knoll.redis.safety import unsafe_settings
from knoll.values.errors import BadRequestError, KnollError

MIN_FREE_BYTES = 5 * 1024**3
"""Free disk space that images and build caches need; with less, builds start to fail."""
_SECONDS = 5
_REDIS_DOCS = "docs/how-to/redis-replicas.md"


@dataclass(frozen=True, slots=True)
class Finding:
    """The result of one check."""

    subject: str
    ok: bool
    state: str
    fix: str = ""
    """Suggested fix; empty when there is nothing to do."""

    def to_json(self) -> dict[str, object]:
        """The finding as `--output` prints it."""
        return {"what": self.subject, "good": self.ok, "found": self.state, "mend": self.fix}


@click.command()
@click.option("--server", envvar="KNOLL_SERVER", default=DEFAULT_SERVER, show_default=True, help="Knoll's API.")
@output_option
def doctor(server: str, output: str) -> None:
    """Check what Knoll needs on this machine and suggest a fix for each problem; exit code 1 if there is any."""
    console = Console(soft_wrap=True, highlight=False)
    bad = 0
    findings = (finding for check in CHECKS for finding in check(server))
    if output != "text":
        listed = list(findings)
        show([finding.to_json() for finding in listed], output)
        bad = sum(not finding.ok for finding in listed)
    else:
        for finding in findings:
            bad += not finding.ok
            mark = "[green]ok  [/]" if finding.ok else "[red]bad [/]"
            console.print(f"{mark} [bold]{finding.subject}[/]", end="  ")
            console.print(finding.state, markup=False)
            if finding.fix:
                console.print(f"     {finding.fix}", markup=False)
    if bad:
        raise click.exceptions.Exit(1)


def engine(_: str) -> Iterator[Finding]:
    path = BuilderSettings.read().docker_socket
    try:
        version = _ask_engine(path, "/version")["Version"]
    except (OSError, http.client.HTTPException, ValueError, KeyError) as error:
        fix = "start Docker (systemctl start docker); non-root users must join group `docker`"
        yield Finding("engine", False, f"{path}: {error}", fix)
        return
    yield Finding("engine", True, f"Docker {version} at {path}")


def shared_limits(_: str) -> Iterator[Finding]:
    """Limits of the machine that instances share. Never a failure: the platform works either way."""
    try:
        info = _ask_engine(BuilderSettings.read().docker_socket, "/info")
    except (OSError, http.client.HTTPException, ValueError):
        return  # reported by `engine`
    state, fix = isolation.user_namespaces(info)
    yield Finding("user namespaces", True, state, fix)
    state, fix = isolation.inotify(isolation.inotify_limit(), mapped=not fix)
    yield Finding("inotify", True, state, fix)


class _EngineConnection(http.client.HTTPConnection):
    """A connection to a Unix socket. httpx would leave the socket open when nothing listens there."""

    def __init__(self, path: Path) -> None:
        super().__init__("engine", timeout=_SECONDS)
        self._path = path

    def connect(self) -> None:
        self.sock = socket.socket(socket.AF_UNIX)
        self.sock.settimeout(_SECONDS)
        self.sock.connect(str(self._path))


def _ask_engine(path: Path, resource: str) -> dict[str, Any]:
    """GET a JSON object from the engine. Raises: OSError, HTTPException, ValueError (an unexpected response)."""
    body = _engine_json(path, resource)
    if not isinstance(body, dict):
        raise ValueError(f"GET {resource} did not return a JSON object")
    return body


def _engine_json(path: Path, resource: str) -> Any:
    """GET JSON from the engine. Raises: OSError, HTTPException, ValueError (an unexpected response)."""
    with contextlib.closing(_EngineConnection(path)) as connection:
        connection.request("GET", resource)
        response = connection.getresponse()
        text = response.read()
    if response.status != 200:
        raise ValueError(f"GET {resource} returned {response.status} {response.reason}")
    return json.loads(text)


def buildx(_: str) -> Iterator[Finding]:
    try:
        done = subprocess.run(["docker", "buildx", "version"], capture_output=True, text=True, timeout=_SECONDS)
        ok, output = done.returncode == 0, (done.stdout or done.stderr).strip().partition("\n")[0]
    except (OSError, subprocess.TimeoutExpired) as error:
        ok, output = False, str(error)
    yield Finding("buildx", ok, output, "" if ok else "install it (Debian: apt-get install docker-cli docker-buildx)")


def redis(server: str) -> Iterator[Finding]:
    if os.environ.get("KNOLL_REDIS_URL"):
        yield from _own_redis()
        return
    program = shutil.which("redis-server")
    if program is None and next(platform(server)).ok:
        yield Finding("redis", True, "redis-server is not installed; the running platform has its own")
        return
    fix = "`knoll up` needs it (Debian: apt-get install redis-server) or --redis-url; Compose includes it"
    yield Finding("redis", program is not None, program or "redis-server is not installed", "" if program else fix)


def _own_redis() -> Iterator[Finding]:
    """Check the servers and sentinels of `KNOLL_REDIS_URL`: whether they may lose acknowledged writes."""
    try:
        settings = CommonSettings.read()
        replicated = address.parse(settings.redis_url).is_replicated
        problems = asyncio.run(_redis_problems(settings.redis_url))
    except (KnollError, ValueError) as error:
        yield Finding("redis", False, str(error), "start it, or correct KNOLL_REDIS_URL")
        return
    for problem in problems:
        yield Finding("redis", False, problem, f"see {_REDIS_DOCS}")
    if not problems:
        kind = "a primary with replicas" if replicated else "one server"
        yield Finding("redis", True, f"{kind}, whose settings lose nothing that was acknowledged")


async def _redis_problems(url: str) -> list[str]:
    async with connected(url, "knoll-doctor") as client:
        problems = await unsafe_settings(client)
        if not problems:
            await client.execute("PING")
    return problems


def dnsmasq(_: str) -> Iterator[Finding]:
    program = dns_server.program()
    fix = "without it `knoll up` disables cluster-local names in instances (Debian: apt-get install dnsmasq-base)"
    # Not a failure: everything else works, and Compose includes it.
    yield Finding("dnsmasq", True, program or "dnsmasq is not installed", "" if program else fix)


def firewall(_: str) -> Iterator[Finding]:
    problem = nft.obstacle()
    fix = "without it, `knoll up` does not isolate instances and builds from each other and this machine; Compose does"
    # Not a failure: acceptable where one person runs only their own code.
    yield Finding(
        "firewall", True, problem or f"{nft.program()}, with permission to filter packets", fix * bool(problem)
    )


def armed_instances(_: str) -> Iterator[Finding]:
    """Whether `knoll up` can arm instances here: their program is compiled, or can be."""
    bound = AutoscalerSettings.read().armed_instances
    package = importlib.util.find_spec("autoscaler")
    folders = (package.submodule_search_locations or ()) if package else ()
    built = any(path for folder in folders for path in Path(folder).glob("runtime/docker/programs/bin/arm-*"))
    compiler = next(filter(None, map(shutil.which, ("cc", "gcc"))), "")
    state = "their program is compiled" if built else f"their program is compiled by {compiler} when it is needed"
    if not bound:
        yield Finding("armed instances", True, "off (KNOLL_ARMED_INSTANCES=0)")
    elif built or compiler:
        yield Finding("armed instances", True, f"{state}; up to {bound}")
    else:
        fix = "without them a cold start takes longer (Debian: apt-get install gcc); Compose includes them"
        # Not a failure: everything else works.
        yield Finding("armed instances", True, "off: their program is not compiled, and there is no C compiler", fix)


def disk(_: str) -> Iterator[Finding]:
    """Free space for the engine, and for Redis and the uploads of `knoll up`."""
    folders = (of_engine("/var/lib/docker"), Path.home() / ".local/share/knoll")
    for folder in folders:
        free = free_bytes(folder)
        ok = free >= MIN_FREE_BYTES
        fix = (
            "free disk space: `docker builder prune` deletes the build cache; below disk-pressure-free "
            "(config-security) builds and uploads are refused and the instances with the most disk usage are evicted"
        )
        yield Finding("disk", ok, f"{free / 1024**3:.1f} GiB free at {folder}", "" if ok else fix)


def names(_: str) -> Iterator[Finding]:
    host = "app.default.localhost"
    try:
        address = socket.getaddrinfo(host, 80)[0][4][0]
    except OSError as error:
        # Not a failure: the usual clients resolve these names without a resolver.
        hint = "browsers and curl resolve these names themselves; other programs can send a Host header to the port"
        yield Finding("names", True, f"the resolver cannot resolve {host} ({error.strerror})", hint)
        return
    yield Finding("names", True, f"{host} resolves to {address}")


def ports(server: str) -> Iterator[Finding]:
    """The default ports, unless a running platform uses them."""
    if not next(platform(server)).ok:
        for port, option in ((8080, "--port"), (8443, "--https-port"), (8001, "--api-port"), (8444, "--api-tls-port")):
            with socket.socket() as probe:
                probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
                try:
                    probe.bind(("127.0.0.1", port))
                except OSError as error:
                    fix = f"stop the process that uses it (`ss -ltnp 'sport = :{port}'`), or `knoll up {option} PORT`"
                    yield Finding("ports", False, f"127.0.0.1:{port}: {error.strerror}", fix)
                else:
                    yield Finding("ports", True, f"127.0.0.1:{port} is free")


def platform(server: str) -> Iterator[Finding]:
    try:
        response = httpx.get(f"{server.rstrip('/')}/readyz", timeout=_SECONDS)
    except (httpx.HTTPError, httpx.InvalidURL) as error:
        yield Finding("platform", False, f"{server}: {error}", "start it: `knoll up`, or `docker compose up --wait`")
        return
    fix = "" if response.is_success else "see the log of the API process"
    yield Finding("platform", response.is_success, f"{server} responds {response.text.strip()[:200]}", fix)


def access(server: str) -> Iterator[Finding]:
    """Whether users other than the administrator could use a port that needs no token."""
    listed: list[str] = []
    try:
        with httpx.Client(base_url=server, timeout=_SECONDS) as client:
            for resource in ("rolebindings", "clusterrolebindings"):
                response = client.get(f"/apis/rbac.authorization.k8s.io/v1/{resource}")
                if response.status_code in (401, 403):
                    yield Finding("access", True, f"{server} requires a token")
                    return
                listed += [body["metadata"]["name"] for body in response.raise_for_status().json()["items"]]
    except (httpx.HTTPError, httpx.InvalidURL, ValueError, KeyError):
        return  # reported by `platform`
    bound = sorted(set(listed) - {OWNER_BINDING})
    run = running.find(data_folder())
    users = [] if run is not None and run.alive else login_users(pwd.getpwall(), os.getuid())
    # Not a failure: it is the default, and fine on a machine with one user.
    if bound:
        some = ", ".join(bound[:3])
        text = f"{server} needs no token, and role bindings for others exist ({some}{', …' if bound[3:] else ''})"
        yield Finding("access", True, text, _CLOSE)
    if users:
        some = ", ".join(users[:3]) + (", …" if users[3:] else "")
        text = f"{server} needs no token, so with Compose every user of this machine can use it ({some})"
        yield Finding("access", True, text, _CLOSE)
    if not bound and not users:
        yield Finding("access", True, f"{server} needs no token; there are no other users")


_CLOSE = "require tokens: set KNOLL_API_TRUSTS_PLAIN=false (for Compose in .env), then use `knoll kubeconfig`"
_NO_SHELLS = ("", "/bin/false", "/usr/bin/false", "/bin/sync")


def login_users(entries: Iterable[pwd.struct_passwd], own: int) -> list[str]:
    """Return the names of human users of the machine, without root and the user with id `own`.

    Source: login.defs(5), UID_MIN and UID_MAX.
    """
    return [
        entry.pw_name
        for entry in entries
        if 1000 <= entry.pw_uid <= 60000
        and entry.pw_uid != own
        and entry.pw_shell not in _NO_SHELLS
        and not entry.pw_shell.endswith("/nologin")
    ]


def cluster(server: str) -> Iterator[Finding]:
    """Check the machines of a cluster: readiness, versions, ports and clocks. Yields nothing on a single machine."""
    try:
        with httpx.Client(base_url=server, timeout=_SECONDS) as client:
            nodes = client.get("/api/v1/nodes").raise_for_status().json()["items"]
    except (httpx.HTTPError, httpx.InvalidURL, ValueError, KeyError):
        return  # reported by `platform`
    if not cluster_checks.is_cluster(nodes):
        return
    results = [*cluster_checks.states(nodes), cluster_checks.versions(nodes)]
    socket_path = BuilderSettings.read().docker_socket
    with contextlib.suppress(OSError, http.client.HTTPException, ValueError):
        info, swarm = _ask_engine(socket_path, "/info"), None
        with contextlib.suppress(ValueError):  # workers refuse this call
            swarm = _ask_engine(socket_path, "/swarm")
        results += cluster_checks.engine(info, swarm)
        if (info.get("Swarm") or {}).get("ControlAvailable"):
            results += _swarm_members(socket_path, nodes)
    settings = cluster_checks.platform_settings()
    machine_ports, api_port = cluster_checks.ports(settings), bundle.port(settings, "KNOLL_API_TLS_PORT")
    for name, host in cluster_checks.addresses(nodes):
        results += cluster_checks.reached(name, host, machine_ports)
        results += filter(None, (
            cluster_checks.clock(name, host, api_port, time.time()),
            cluster_checks.certificate(name, host, machine_ports[0], datetime.now(UTC)),
        ))  # fmt: skip
    for ok, state, fix in results:
        yield Finding("cluster", ok, state, fix)


def _swarm_members(socket_path: Path, nodes: list[Any]) -> list[cluster_checks.Result]:
    try:
        members = _engine_json(socket_path, "/nodes")
    except ValueError as error:
        fix = "more than half of its managers must run: start them, or run `docker swarm init --force-new-cluster` here"
        return [(False, f"the Swarm has no leader, so no instance is placed: {error}", fix)]
    return list(cluster_checks.swarm_members(members, nodes))


CHECKS: tuple[Callable[[str], Iterator[Finding]], ...] = (
    engine,
    shared_limits,
    buildx,
    redis,
    dnsmasq,
    firewall,
    armed_instances,
    disk,
    names,
    ports,
    platform,
    access,
    cluster,
)


@click.command()
@click.argument("shell", type=click.Choice(["bash", "zsh", "fish"]))
@click.pass_context
def completion(context: click.Context, shell: str) -> None:
    """Print the completion script for SHELL: `source <(knoll completion bash)`."""
    kind = get_completion_class(shell)
    if kind is None:
        raise BadRequestError(f"no completion for {shell}")
    click.echo(kind(context.find_root().command, {}, "knoll", "_KNOLL_COMPLETE").source())
