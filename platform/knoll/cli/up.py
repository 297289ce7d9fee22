"""`knoll up`: the whole platform on this machine under one supervisor, for development and tests."""

import asyncio
import hashlib
import os
import shutil
import signal
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path

import click
import httpx
import structlog
from rich.console import Console
from rich.markup import escape

from knoll.auth import key_files
from knoll.cli import instance_network, keys, running
from knoll.cli.state_folder import data_option
from knoll.cli.terminal import write
from knoll.firewall import nft
from knoll.process import logs
from knoll.process.settings import BUILDKIT_IMAGE, ActivatorSettings, ApiSettings, AutoscalerSettings, BuilderSettings
from knoll.process.supervise import Child, keep_running
from knoll.values.errors import KnollError

log = structlog.get_logger()

START_SECONDS = 60
_COLOURS = {
    "redis": "red", "api": "cyan", "builder": "magenta", "autoscaler": "yellow", "activator": "green", "names": "blue",
    "firewall": "white",
}  # fmt: skip


class StartError(KnollError):
    """The platform did not start; the message names the processes that are not ready and why."""


@click.command()
@click.option("--redis-url", envvar="KNOLL_REDIS_URL", help="Use this Redis instead of starting one.")
@click.option("--redis-users", is_flag=True, help="Use one Redis user per process; see `knoll redis-acl`.")
@data_option
@click.option("--port", default=8080, show_default=True, help="Port for requests to Services.")
@click.option("--https-port", default=8443, show_default=True, help="Port for https requests to Services; 0 for none.")
@click.option("--api-port", default=8001, show_default=True, help="Port of the API on the loopback address.")
@click.option(
    "--api-tls-port", default=8444, show_default=True, help="Port of the API over TLS, with tokens; 0 for none."
)
@click.option(
    "--platform", default="knoll-dev", show_default=True, help="Name of this platform, a label of its containers."
)
@click.option("--keep-instances", is_flag=True, help="Keep containers running after exit; the next start adopts them.")
@click.option("--verbose", is_flag=True, help="Set the log level of all processes to info.")
def up(
    redis_url: str | None,
    redis_users: bool,
    data: Path,
    port: int,
    https_port: int,
    api_port: int,
    api_tls_port: int,
    platform: str,
    keep_instances: bool,
    verbose: bool,
) -> None:
    """Run the whole platform in the foreground until Ctrl-C or `knoll down`."""
    logs.set_up("info", "console", "")
    # It holds sources and state of all tenants.
    data.mkdir(parents=True, exist_ok=True, mode=0o700)
    console = Console(stderr=True)
    users = redis_users or not redis_url
    key_files.prepare(keys.folder_of(data))
    environment = {
        **admin_ports(),
        "KNOLL_REDIS_URL": redis_url or f"unix://{(data / 'redis.sock').resolve()}?db=0",
        "KNOLL_PLATFORM": platform,
        "KNOLL_INSTANCE_NETWORK": os.environ.get("KNOLL_INSTANCE_NETWORK", f"{platform}-instances"),
        "KNOLL_UPLOADS_DIR": str((data / "uploads").resolve()),
        "KNOLL_STATE_DIR": str((data / "state").resolve()),
        **build_settings(platform, data),
        "KNOLL_API_PORT": str(api_port),
        "KNOLL_API_TLS_PORT": str(api_tls_port),
        "KNOLL_API_SOCKET": str(ApiSettings.read().api_socket or (data / "api.sock").resolve()),
        "KNOLL_ACTIVATOR_PORTS": str(port),
        "KNOLL_PUBLIC_PORT": str(port),
        "KNOLL_ACTIVATOR_TLS_PORTS": str(https_port or ""),
        "KNOLL_PUBLIC_HTTPS_PORT": str(https_port),
        "KNOLL_LOG_FORMAT": "console",
        "KNOLL_LOG_LEVEL": "info" if verbose else "warning",
        "PYTHONUNBUFFERED": "1",
    }
    if not nft.obstacle():
        environment["KNOLL_FIREWALL_SOCKET"] = str((data / "firewall.sock").resolve())
    names = instance_network.make_folder(platform, data)
    with running.lock(data, environment):
        run = _run(
            console, data, environment, names, own_redis=not redis_url, users=users, keep_instances=keep_instances
        )
        asyncio.run(run)


def admin_ports() -> dict[str, str]:
    """Return the admin ports of the processes, from their settings."""
    autoscaler = AutoscalerSettings.read().autoscaler_admin_port
    return {
        "KNOLL_ACTIVATOR_ADMIN_PORT": str(ActivatorSettings.read().activator_admin_port),
        "KNOLL_AUTOSCALER_ADMIN_PORT": str(autoscaler),
        "KNOLL_BUILDER_ADMIN_PORT": str(BuilderSettings.read().builder_admin_port),
        "KNOLL_AUTOSCALER_URL": f"http://127.0.0.1:{autoscaler}",
    }


def build_settings(platform: str, data: Path) -> dict[str, str]:
    """Return the build settings: the builder starts a BuildKit daemon unless the environment names a running one."""
    settings = {
        "KNOLL_LAYERS_DIR": os.environ.get("KNOLL_LAYERS_DIR", str((data / "layers").resolve())),
        "KNOLL_BUILD_NETWORK": os.environ.get("KNOLL_BUILD_NETWORK", f"{platform}-builds"),
    }
    if "KNOLL_BUILDKIT_SOCKET" not in os.environ:
        settings["KNOLL_BUILDKIT_SOCKET"] = str((data / "buildkit" / "run" / "buildkit" / "buildkitd.sock").resolve())
        settings["KNOLL_BUILDKIT_IMAGE"] = os.environ.get("KNOLL_BUILDKIT_IMAGE", BUILDKIT_IMAGE)
        # Named in advance, so that the firewall filters it before the first build; at most 15 letters.
        settings["KNOLL_BUILD_BRIDGE"] = f"knoll-b{hashlib.sha256(platform.encode()).hexdigest()[:8]}"
    return settings


def readiness_urls(environment: Mapping[str, str]) -> dict[str, str]:
    """Return the readiness URL of each process."""
    host = ApiSettings.read().api_host
    return {
        "api": f"http://{host}:{environment['KNOLL_API_PORT']}/readyz",
        "builder": f"http://127.0.0.1:{environment['KNOLL_BUILDER_ADMIN_PORT']}/readyz",
        "autoscaler": f"http://127.0.0.1:{environment['KNOLL_AUTOSCALER_ADMIN_PORT']}/readyz",
        "activator": f"http://127.0.0.1:{environment['KNOLL_ACTIVATOR_ADMIN_PORT']}/readyz",
    }


def redis_command(data: Path, users: Path | None = None) -> list[str]:
    """Return the command of a Redis that listens only on a socket in our folder and syncs each write before it replies.

    Args: users: ACL file; without it, every client of the socket may run every command.
    """
    binary = shutil.which("redis-server")
    if binary is None:
        raise StartError(
            "redis-server is not installed: install it (Debian: apt-get install redis-server), "
            "or use a running one with --redis-url"
        )
    socket = str((data / "redis.sock").resolve())
    return [
        binary, "--port", "0", "--unixsocket", socket, "--unixsocketperm", "600", "--dir", str(data.resolve()),
        "--save", "", "--appendonly", "yes", "--appendfsync", "always", "--hz", "2", "--loglevel", "warning",
        *(["--aclfile", str(users)] if users else []),
    ]  # fmt: skip


async def _run(
    console: Console,
    data: Path,
    environment: Mapping[str, str],
    names: Path,
    *,
    own_redis: bool,
    users: bool,
    keep_instances: bool,
) -> None:
    stop_processes, stop_redis = asyncio.Event(), asyncio.Event()
    stopped = asyncio.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(number, stopped.set)

    def show(name: str, line: str) -> None:
        if name == "names" and environment["KNOLL_LOG_LEVEL"] != "info" and line.startswith("dnsmasq["):
            return  # it logs each name that it reads; its errors have no process id
        console.print(f"[{_COLOURS[name]}]{name:>10}[/] ", end="")
        write(console, line)

    children = []
    redis = None
    own_keys = keys.folder_of(data)
    try:
        if own_redis:
            command = redis_command(data, own_keys / key_files.ACL)
            redis = asyncio.create_task(keep_running(Child("redis", command, on_line=show), stop_redis))

        def start(name: str, command: Sequence[str], more: Mapping[str, str]) -> None:
            own = keys.environment_of(own_keys, name, environment["KNOLL_REDIS_URL"], users=users)
            child = Child(name, command, {**environment, **own, **more}, on_line=show)
            children.append(asyncio.create_task(keep_running(child, stop_processes)))

        for name in ("api", "builder"):
            start(name, [sys.executable, "-m", name], {})
        network = await instance_network.inspect(environment, names)
        if network.warning:
            console.print(f"[bold yellow]warning[/] {escape(network.warning)}", highlight=False)
        if "KNOLL_FIREWALL_SOCKET" in environment:
            settings = {"KNOLL_FIREWALL_GATEWAYS": ",".join(network.gateways), **network.environment}
            start("firewall", [sys.executable, "-m", "knoll.firewall"], settings)
        else:
            text = f"instances and builds are not isolated from each other and this machine: {nft.obstacle()}"
            console.print(f"[bold yellow]warning[/] {escape(text)}", highlight=False)
        if network.dns_command:
            start("names", network.dns_command, {})
        for name in ("autoscaler", "activator"):
            start(name, [sys.executable, "-m", name], network.environment)
        await _until_ready(console, environment, stopped)
        await stopped.wait()
        console.print("[bold]stopping[/]")
    finally:
        stop_processes.set()
        await asyncio.gather(*children)
        if not keep_instances:
            await _remove_instances(environment)
            if "KNOLL_FIREWALL_SOCKET" in environment:
                await _remove_rules(environment)
            shutil.rmtree(names, ignore_errors=True)
        stop_redis.set()
        if redis:
            await redis


async def _until_ready(console: Console, environment: Mapping[str, str], stopped: asyncio.Event) -> None:
    waiting = readiness_urls(environment)
    missing: dict[str, str] = dict.fromkeys(waiting, "no response yet")
    deadline = asyncio.get_running_loop().time() + START_SECONDS
    async with httpx.AsyncClient(timeout=2) as client:
        while waiting and not stopped.is_set():
            for name, url in list(waiting.items()):
                try:
                    answer = await client.get(url)
                except httpx.TransportError:
                    continue
                if answer.is_success:
                    del waiting[name]
                else:
                    missing[name] = answer.text
            if asyncio.get_running_loop().time() > deadline:
                parts = "; ".join(f"{name}: {missing[name]}" for name in waiting)
                raise StartError(f"not ready within {START_SECONDS} s: {parts}")
            await asyncio.sleep(0.1)
    if not stopped.is_set():
        console.print(summary(environment), highlight=False, soft_wrap=True)


def summary(environment: Mapping[str, str]) -> str:
    """Return the addresses of a running platform, in rich's markup."""
    api, port = environment["KNOLL_API_PORT"], environment["KNOLL_PUBLIC_PORT"]
    lines = [
        f"[bold green]Knoll is up[/]  Services http://NAME.NAMESPACE.localhost:{port}      Ctrl-C stops everything"
    ]
    if ApiSettings.read().trusts_plain:
        lines.append(f"API for you only: kubectl --server http://127.0.0.1:{api} apply -f service.yaml")
    if environment["KNOLL_API_TLS_PORT"] != "0":
        lines.append(f"API with a token: export KUBECONFIG={environment['KNOLL_STATE_DIR']}/kubeconfig")
    return "\n            ".join(lines)


async def _remove_instances(environment: Mapping[str, str]) -> None:
    """Have the autoscaler, which alone manages containers, remove its own."""
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-m", "autoscaler", "--remove-all", env={**os.environ, **environment}
    )
    if await process.wait():
        log.warning("some containers are still running; see `docker ps --filter label=knoll.dev/platform`")


async def _remove_rules(environment: Mapping[str, str]) -> None:
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-m", "knoll.firewall", "--remove", env={**os.environ, **environment}
    )
    if await process.wait():
        log.warning("some firewall rules were not removed; see `nft list tables`")
