"""The firewall process: `python -m knoll.firewall`; with `--remove` it removes the platform's rules and exits."""

from knoll.process import footprint

footprint.block_unused_imports()

import asyncio
import os
import signal
import socket
import sys
from ipaddress import IPv4Address
from pathlib import Path

import msgspec
import structlog
from starlette.requests import Request
from starlette.responses import PlainTextResponse, Response
from starlette.routing import BaseRoute, Route

from knoll.firewall import nft, policy
from knoll.firewall.keeper import Keeper
from knoll.firewall.ruleset import Wiring
from knoll.process import admin, logs
from knoll.process.settings import FirewallSettings
from knoll.values.errors import KnollError

log = structlog.get_logger()

REMOVE = "--remove"
RESOLVERS = (Path("/run/systemd/resolve/resolv.conf"), Path("/etc/resolv.conf"))
"""Files from which the engine reads the machine's DNS servers."""


def wiring(settings: FirewallSettings, resolvers: tuple[str, ...]) -> Wiring:
    """Convert the settings. Raises: ValueError."""
    return Wiring(
        platform=settings.platform,
        gateways=settings.gateways,
        dns=str(settings.instance_dns or ""),
        own=settings.own_networks,
        relays=settings.relays,
        resolvers=resolvers,
        build_bridge=settings.build_bridge,
    )


def machine_resolvers(texts: list[str]) -> tuple[str, ...]:
    """IPv4 addresses of the DNS servers in resolv.conf files, without loopback, which containers cannot reach.

    Args: texts: contents of resolv.conf(5) files.
    """
    servers = [line.split()[1] for text in texts for line in text.splitlines() if line.startswith("nameserver ")]
    addresses = [address for address in servers if ":" not in address and not IPv4Address(address).is_loopback]
    return tuple(dict.fromkeys(addresses))


def routes(keeper: Keeper) -> list[BaseRoute]:
    """PUT /policy."""

    async def put(request: Request) -> Response:
        try:
            requested = msgspec.json.decode(await request.body(), type=policy.FirewallPolicy)
            applied = await keeper.apply(requested)
        except msgspec.ValidationError as error:
            return PlainTextResponse(str(error), 400)
        except KnollError as error:
            return PlainTextResponse(str(error), error.code)
        return Response(msgspec.json.encode(applied), media_type="application/json")

    return [Route(policy.PATH, put, methods=["PUT"])]


async def serve(settings: FirewallSettings, path: Path) -> None:
    """Filter until SIGTERM or SIGINT; the rules stay in place.

    Args: path: of the socket that receives policies.
    """
    stop = asyncio.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(number, stop.set)
    keeper = Keeper(wiring(settings, _resolvers()))
    await keeper.begin()

    async def ready() -> str:
        return keeper.problem

    listener = _listen(path)
    keeping = asyncio.create_task(keeper.run())
    serving = asyncio.create_task(admin.serve(admin.app(ready, routes(keeper)), str(path), 0, stop, listener=listener))
    footprint.freeze_gc()
    try:
        await asyncio.wait({keeping, serving}, return_when=asyncio.FIRST_COMPLETED)
        stop.set()
        await serving
        if keeping.done():
            keeping.result()
    finally:
        keeping.cancel()


def _resolvers() -> tuple[str, ...]:
    return machine_resolvers([path.read_text(errors="replace") for path in RESOLVERS if path.exists()])


def _listen(path: Path) -> socket.socket:
    """A socket for processes of the same user or group only, because its clients can open the network."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.unlink(missing_ok=True)
    listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    before = os.umask(0o117)
    try:
        listener.bind(str(path))
    finally:
        os.umask(before)
    listener.listen(16)
    return listener


async def remove(settings: FirewallSettings) -> None:
    """Remove the platform's rules."""
    await Keeper(wiring(settings, ())).remove()


def main() -> None:
    """Entry point of `python -m knoll.firewall`."""
    unknown = [word for word in sys.argv[1:] if word != REMOVE]
    if unknown:
        sys.exit(f"unknown argument {unknown[0]!r}; valid is {REMOVE}, everything else is set by KNOLL_* variables")
    settings = FirewallSettings.or_exit()
    logs.set_up(settings.log_level, settings.log_format, "firewall")
    if problem := nft.obstacle():
        sys.exit(f"firewall: {problem}")
    try:
        if REMOVE in sys.argv[1:]:
            asyncio.run(remove(settings))
        elif settings.firewall_socket is None:
            sys.exit("firewall: KNOLL_FIREWALL_SOCKET is not set: set it to the socket on which to receive the policy")
        else:
            asyncio.run(serve(settings, settings.firewall_socket))
    except (KnollError, OSError) as error:
        sys.exit(f"firewall: {error}")


if __name__ == "__main__":
    main()
