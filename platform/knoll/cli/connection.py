"""Chooses the API server and the credentials of a command.

The first of these that exists: `--server`; `--kubeconfig`; the file in KUBECONFIG, if `knoll` wrote its current
context; the owner's kubeconfig of a local `knoll up` or of this container's platform; the plain port of this machine.
All but the first and the last use https and a token.
"""

import base64
import functools
import os
import ssl
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, TypeVar
from urllib.parse import urlsplit

import click
import yaml

from knoll.auth import kubeconfig as files
from knoll.cli import running
from knoll.cli.client import DEFAULT_SERVER, ApiClient
from knoll.cli.state_folder import data_folder
from knoll.process.settings import ApiSettings
from knoll.values.errors import BadRequestError

R = TypeVar("R")


def client_options(command: Callable[..., R]) -> Callable[..., R]:
    """Add the options of commands that call the API, passed to the command as `client` and `namespace`."""

    @click.option("-n", "--namespace", envvar="KNOLL_NAMESPACE", default="default", show_default=True)
    @click.option(
        "--server",
        envvar="KNOLL_SERVER",
        help="Knoll's API, without a token: http://HOST:PORT or unix:PATH.  "
        f"[default: the owner's kubeconfig on this machine, or {DEFAULT_SERVER}]",
    )
    @click.option(
        "--kubeconfig",
        envvar="KNOLL_KUBECONFIG",
        type=click.Path(exists=True, dir_okay=False, path_type=Path),
        help="Use server, token and certificate authority of its current context.",
    )
    @functools.wraps(command)
    def with_client(*args: Any, server: str | None, kubeconfig: Path | None, **options: Any) -> R:
        client = ApiClient(server) if server else api_client(kubeconfig)
        try:
            return command(*args, client=client, **options)
        finally:
            client.close()

    return with_client


def api_client(kubeconfig: Path | None) -> ApiClient:
    """Return the client of a command without `--server`. Raises: BadRequestError."""
    if kubeconfig:
        return from_kubeconfig(kubeconfig)
    exported = Path(os.environ.get("KUBECONFIG") or "/nowhere")
    if _is_ours(exported):
        return from_kubeconfig(exported)
    for path in _owners():
        if os.access(path, os.R_OK):
            return from_kubeconfig(path, here=True)
    return ApiClient(DEFAULT_SERVER)


def _is_ours(path: Path) -> bool:
    try:
        return bool(yaml.safe_load(path.read_text())["current-context"] == files.NAME)
    except (OSError, yaml.YAMLError, KeyError, TypeError, UnicodeDecodeError):
        return False


def _owners() -> Iterator[Path]:
    """Yield the possible paths of the owner's kubeconfig on this machine."""
    data = data_folder()
    run = running.find(data)
    if run is not None and run.alive:
        yield Path(run.environment["KNOLL_STATE_DIR"]) / "kubeconfig"
    yield ApiSettings.read().kubeconfig


def from_kubeconfig(path: Path, *, here: bool = False) -> ApiClient:
    """Return the client for a kubeconfig's current context.

    Args: here: the API runs on this machine (or in this container), whatever its public address is.

    Raises: BadRequestError: the file is invalid.
    """
    try:
        document = yaml.safe_load(path.read_text())
        context = _named(document["contexts"], document["current-context"])["context"]
        cluster = _named(document["clusters"], context["cluster"])["cluster"]
        user = _named(document.get("users") or [], context.get("user", "")).get("user") or {}
        server, authority = str(cluster["server"]), cluster.get("certificate-authority-data", "")
        trusted = base64.b64decode(authority, validate=True).decode() if authority else ""
        file = cluster.get("certificate-authority")
        verify = ssl.create_default_context(cafile=str(path.parent / file) if file else None, cadata=trusted or None)
    except (yaml.YAMLError, KeyError, TypeError, AttributeError, ValueError, OSError) as error:
        raise BadRequestError(f"{path} is not a kubeconfig with a server in its current context: {error!r}") from error
    if here:
        server = f"https://127.0.0.1:{urlsplit(server).port or 443}"
    return ApiClient(server, token=str(user.get("token") or ""), verify=verify)


def _named(entries: list[dict[str, Any]], name: str) -> dict[str, Any]:
    return next((entry for entry in entries if entry["name"] == name), {})
