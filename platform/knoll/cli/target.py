"""Which platform a command speaks to: --server, KNOLL_SERVER, a kubeconfig, or this machine's."""

import base64
import functools
import ssl
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

import click
import yaml

from knoll.cli.client import DEFAULT_SERVER, Client
from knoll.errors import BadRequestError

R = TypeVar("R")


def client_options(command: Callable[..., R]) -> Callable[..., R]:
    """Options of every command that speaks to a platform; it gets `client` and `namespace`."""

    @click.option("-n", "--namespace", envvar="KNOLL_NAMESPACE", default="default", show_default=True)
    @click.option("--server", envvar="KNOLL_SERVER", help=f"Knoll's API.  [default: {DEFAULT_SERVER}]")
    @click.option(
        "--kubeconfig",
        envvar="KNOLL_KUBECONFIG",
        type=click.Path(exists=True, dir_okay=False, path_type=Path),
        help="Take server, token and certificate authority from its current context.",
    )
    @functools.wraps(command)
    def with_client(*args: Any, server: str | None, kubeconfig: Path | None, **options: Any) -> R:
        client = from_kubeconfig(kubeconfig) if kubeconfig and not server else Client(server or DEFAULT_SERVER)
        try:
            return command(*args, client=client, **options)
        finally:
            client.close()

    return with_client


def from_kubeconfig(path: Path) -> Client:
    """Raises: BadRequestError that says what is missing in the file."""
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
        raise BadRequestError(f"{path} is not a kubeconfig whose current context names a server: {error!r}") from error
    return Client(server, token=str(user.get("token") or ""), verify=verify)


def _named(entries: list[dict[str, Any]], name: str) -> dict[str, Any]:
    return next((entry for entry in entries if entry["name"] == name), {})
