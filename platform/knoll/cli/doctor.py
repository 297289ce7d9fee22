"""Commands about this machine: doctor, completion."""

import contextlib
import http.client
import json
import os
import pwd
import shutil
import socket
import subprocess
from collections.abc import Callable, Iterable, Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import click
import httpx
from click.shell_completion import get_completion_class
from rich.console import Console

from knoll.auth.tenancy import OWNER_BINDING
from knoll.cli import isolation, running
from knoll.cli.client import DEFAULT_SERVER
from knoll.cli.output import output_option, show
from knoll.cli.state_folder import data_folder
from knoll.firewall import nft
from knoll.process import dns_server
from knoll.process.disk import free_bytes, of_engine
from knoll.process.settings import BuilderSettings
from knoll.values.errors import BadRequestError

LEAST_FREE_BYTES = 5 * 1024**3
"""Images and their caches need room; below this builds begin to fail."""
_SECONDS = 5


@dataclass(frozen=True, slots=True)
class Finding:
    """One thing that was looked at."""

    what: str
    good: bool
    found: str
    mend: str = ""
    """What to do about it; empty when there is nothing to do."""


@click.command()
@click.option("--server", envvar="KNOLL_SERVER", default=DEFAULT_SERVER, show_default=True, help="Knoll's API.")
@output_option
def doctor(server: str, output: str) -> None:
    """Look at what Knoll needs on this machine, and say how to mend what is missing; exit code 1 when something is."""
    console = Console(soft_wrap=True, highlight=False)
    bad = 0
    findings = (finding for check in CHECKS for finding in check(server))
    if output != "text":
        found = list(findings)
        show([asdict(finding) for finding in found], output)
        bad = sum(not finding.good for finding in found)
    else:
        for finding in findings:
            bad += not finding.good
            mark = "[green]ok  [/]" if finding.good else "[red]bad [/]"
            console.print(f"{mark} [bold]{finding.what}[/]", end="  ")
            console.print(finding.found, markup=False)
            if finding.mend:
                console.print(f"     {finding.mend}", markup=False)
    if bad:
        raise click.exceptions.Exit(1)


def engine(_: str) -> Iterator[Finding]:
    path = BuilderSettings.read().docker_socket
    try:
        version = _ask_engine(path, "/version")["Version"]
    except (OSError, http.client.HTTPException, ValueError, KeyError) as error:
        mend = "start Docker (systemctl start docker); as another user than root, be in the group docker"
        yield Finding("engine", False, f"{path}: {error}", mend)
        return
    yield Finding("engine", True, f"Docker {version} at {path}")


def shared_limits(_: str) -> Iterator[Finding]:
    """What instances share of the machine. Never bad: the platform works either way."""
    try:
        info = _ask_engine(BuilderSettings.read().docker_socket, "/info")
    except (OSError, http.client.HTTPException, ValueError):
        return  # said by `engine`
    found, mend = isolation.user_namespaces(info)
    yield Finding("user namespaces", True, found, mend)
    found, mend = isolation.inotify(isolation.inotify_limit(), mapped=not mend)
    yield Finding("inotify", True, found, mend)


class _EngineConnection(http.client.HTTPConnection):
    """To a Unix socket. httpx leaves the socket open when nothing listens there."""

    def __init__(self, path: Path) -> None:
        super().__init__("engine", timeout=_SECONDS)
        self._path = path

    def connect(self) -> None:
        self.sock = socket.socket(socket.AF_UNIX)
        self.sock.settimeout(_SECONDS)
        self.sock.connect(str(self._path))


def _ask_engine(path: Path, resource: str) -> dict[str, Any]:
    """Raises: OSError, HTTPException, ValueError: the engine does not answer as it should."""
    with contextlib.closing(_EngineConnection(path)) as connection:
        connection.request("GET", resource)
        answer = connection.getresponse()
        text = answer.read()
    if answer.status != 200:
        raise ValueError(f"GET {resource} was answered with {answer.status} {answer.reason}")
    body = json.loads(text)
    if not isinstance(body, dict):
        raise ValueError(f"GET {resource} was not answered with an object")
    return body


def buildx(_: str) -> Iterator[Finding]:
    try:
        done = subprocess.run(["docker", "buildx", "version"], capture_output=True, text=True, timeout=_SECONDS)
        good, found = done.returncode == 0, (done.stdout or done.stderr).strip().partition("\n")[0]
    except (OSError, subprocess.TimeoutExpired) as error:
        good, found = False, str(error)
    yield Finding(
        "buildx", good, found, "" if good else "install it (Debian: apt-get install docker-cli docker-buildx)"
    )


def redis(_: str) -> Iterator[Finding]:
    found = shutil.which("redis-server")
    mend = "`knoll up` needs it (Debian: apt-get install redis-server) or --redis-url; Compose brings its own"
    yield Finding("redis", found is not None, found or "redis-server is not installed", "" if found else mend)


def dnsmasq(_: str) -> Iterator[Finding]:
    found = dns_server.program()
    mend = "without it `knoll up` has no cluster-local names in instances (Debian: apt-get install dnsmasq-base)"
    # Not bad: all else works, and Compose brings its own.
    yield Finding("dnsmasq", True, found or "dnsmasq is not installed", "" if found else mend)


def firewall(_: str) -> Iterator[Finding]:
    problem = nft.obstacle()
    mend = "`knoll up` keeps instances and builds from each other and from this machine only so; Compose always does"
    # Not bad: it is a choice where one person runs what they wrote.
    yield Finding(
        "firewall", True, problem or f"{nft.program()}, and the right to filter packets", mend * bool(problem)
    )


def disk(_: str) -> Iterator[Finding]:
    """That of the engine, and that of Redis and the uploads of `knoll up`."""
    folders = (of_engine("/var/lib/docker"), Path.home() / ".local/share/knoll")
    for folder in folders:
        free = free_bytes(folder)
        good = free >= LEAST_FREE_BYTES
        mend = (
            "make room: `docker builder prune` drops the cache of builds; below disk-pressure-free "
            "(config-security) builds and uploads are refused and the largest users of the disk evicted"
        )
        yield Finding("disk", good, f"{free / 1024**3:.1f} GiB free at {folder}", "" if good else mend)


def names(_: str) -> Iterator[Finding]:
    host = "app.default.localhost"
    try:
        found = socket.getaddrinfo(host, 80)[0][4][0]
    except OSError as error:
        # Not bad: the clients that matter ask nobody for these names.
        hint = "browsers and curl know such names by themselves; other programs can send a Host header to the port"
        yield Finding("names", True, f"the resolver does not know {host} ({error.strerror})", hint)
        return
    yield Finding("names", True, f"{host} is {found}")


def ports(server: str) -> Iterator[Finding]:
    """The usual ones, unless a platform has them."""
    if not next(platform(server)).good:
        for port, option in ((8080, "--port"), (8443, "--https-port"), (8001, "--api-port"), (8444, "--api-tls-port")):
            with socket.socket() as probe:
                probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
                try:
                    probe.bind(("127.0.0.1", port))
                except OSError as error:
                    mend = f"end what listens there (`ss -ltnp 'sport = :{port}'`), or `knoll up {option} ANOTHER`"
                    yield Finding("ports", False, f"127.0.0.1:{port}: {error.strerror}", mend)
                else:
                    yield Finding("ports", True, f"127.0.0.1:{port} is free")


def platform(server: str) -> Iterator[Finding]:
    try:
        answer = httpx.get(f"{server.rstrip('/')}/readyz", timeout=_SECONDS)
    except (httpx.HTTPError, httpx.InvalidURL) as error:
        yield Finding("platform", False, f"{server}: {error}", "start it: `knoll up`, or `docker compose up --wait`")
        return
    mend = "" if answer.is_success else "see the log of the api"
    yield Finding("platform", answer.is_success, f"{server} answers {answer.text.strip()[:200]}", mend)


def access(server: str) -> Iterator[Finding]:
    """Whether others than the administrator could use a port that asks for no token."""
    listed: list[str] = []
    try:
        with httpx.Client(base_url=server, timeout=_SECONDS) as client:
            for resource in ("rolebindings", "clusterrolebindings"):
                answer = client.get(f"/apis/rbac.authorization.k8s.io/v1/{resource}")
                if answer.status_code in (401, 403):
                    yield Finding("access", True, f"{server} asks for a token")
                    return
                listed += [body["metadata"]["name"] for body in answer.raise_for_status().json()["items"]]
    except (httpx.HTTPError, httpx.InvalidURL, ValueError, KeyError):
        return  # `platform` has said so
    bound = sorted(set(listed) - {OWNER_BINDING})
    run = running.find(data_folder())
    users = [] if run is not None and run.alive else login_users(pwd.getpwall(), os.getuid())
    # Not bad: it is so by default, and right for a machine with one user.
    if bound:
        some = ", ".join(bound[:3])
        text = f"{server} asks you for no token, and others have rights here ({some}{', …' if bound[3:] else ''})"
        yield Finding("access", True, text, _CLOSE)
    if users:
        some = ", ".join(users[:3]) + (", …" if users[3:] else "")
        text = f"{server} asks for no token, and with Compose every user of this machine may use it ({some})"
        yield Finding("access", True, text, _CLOSE)
    if not bound and not users:
        yield Finding("access", True, f"{server} asks you for no token; no one else uses it")


_CLOSE = "close it: KNOLL_API_TRUSTS_PLAIN=false, for Compose in .env; then use the kubeconfig of `knoll kubeconfig`"
_NO_SHELLS = ("", "/bin/false", "/usr/bin/false", "/bin/sync")


def login_users(entries: Iterable[pwd.struct_passwd], own: int) -> list[str]:
    """Names of the people among a machine's users, without root and the user of number `own`.

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


CHECKS: tuple[Callable[[str], Iterator[Finding]], ...] = (
    engine,
    shared_limits,
    buildx,
    redis,
    dnsmasq,
    firewall,
    disk,
    names,
    ports,
    platform,
    access,
)


@click.command()
@click.argument("shell", type=click.Choice(["bash", "zsh", "fish"]))
@click.pass_context
def completion(context: click.Context, shell: str) -> None:
    """Print what makes SHELL complete this command: `source <(knoll completion bash)`."""
    kind = get_completion_class(shell)
    if kind is None:
        raise BadRequestError(f"there is no completion for {shell}")
    click.echo(kind(context.find_root().command, {}, "knoll", "_KNOLL_COMPLETE").source())
