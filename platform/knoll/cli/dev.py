"""`knoll dev`: a folder is served again each time it changes."""

import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import click
from watchfiles import DefaultFilter, watch

from knoll.cli import traffic_split
from knoll.cli.client import ApiClient
from knoll.cli.connection import client_options
from knoll.cli.deploy import Deployment, name_of, say, source_options, variables
from knoll.cli.log_follower import LogFollower
from knoll.cli.pack import NEVER_SOURCE, files
from knoll.cli.services import summary
from knoll.cli.terminal import write
from knoll.values import kinds
from knoll.values.errors import KnollError, StoreUnavailableError

QUIET_MS = 200
"""An editor writes a file in several steps, a checkout writes many: a change counts once it is over this long."""


@click.command()
@source_options
@click.option("--delete", is_flag=True, help="Delete the Service at the end.")
@client_options
def dev(
    source: Path,
    name: str | None,
    dockerfile: str,
    env: tuple[str, ...],
    verbose: bool,
    delete: bool,
    client: ApiClient,
    namespace: str,
) -> None:
    """Serve the folder SOURCE, and anew each time it changes, with its logs here, until Ctrl-C.

    A change is built and gets all requests once it is ready. A change that does not build or does not start is told,
    and what served before serves on.
    """
    source = source.resolve()
    wanted = Deployment(client, namespace, name or name_of(source), source, dockerfile, variables(env), verbose)
    console = wanted.console

    def line(pod: str, text: str) -> None:
        console.print(f"[cyan]{_short(pod)}[/] ", end="")
        write(console, text)

    LogFollower(client, namespace, wanted.name, line).start(tail=10)
    last = ""
    try:
        for paths in changes(source, dockerfile):
            if paths:
                console.print(f"[bold]changed[/]  {', '.join(paths[:5])}{' …' if len(paths) > 5 else ''}")
            last = _serve(wanted, last)
    except KeyboardInterrupt:
        if delete:
            client.delete(kinds.SERVICE, namespace, wanted.name)
            console.print(f"[bold]deleted[/]  {wanted.name}")
        else:
            console.print(f"{wanted.name} stays as it is; delete it with: kubectl delete ksvc {wanted.name}")


def changes(source: Path, dockerfile: str) -> Iterator[list[str]]:
    """An empty list at once; then, each time something of the source changed, which paths; until it is interrupted."""
    yield []
    belongs = {str(source / name) for name in _named(source, dockerfile)}
    for found in watch(source, debounce=2000, step=QUIET_MS, watch_filter=DefaultFilter(), raise_interrupt=True):
        now = {str(source / name) for name in _named(source, dockerfile)}
        # What is ignored does not count; what is gone did belong.
        paths = sorted({path for _, path in found} & (belongs | now))
        belongs = now
        if paths:
            yield [str(Path(path).relative_to(source)) for path in paths]


def _named(source: Path, dockerfile: str) -> list[str]:
    return files(source, dockerfile, NEVER_SOURCE if not (source / dockerfile).is_file() else ())


def _serve(wanted: Deployment, last: str) -> str:
    """Build and serve what is there, unless it is what was tried last; returns its upload.

    Raises: StoreUnavailableError when there is no platform to begin with.
    """
    console, begun = wanted.console, time.monotonic()
    upload_id = ""
    try:
        upload_id = wanted.upload()
        if upload_id == last:
            return last
        found = summary(wanted.serve(upload_id, _to_latest))
    except KnollError as error:
        if not last and isinstance(error, StoreUnavailableError):
            raise
        console.print("[bold red]failed[/]   ", end="")
        write(console, str(error))
        console.print("waiting for the next change")
        return upload_id or last
    console.print(f"[bold green]serving[/]  {found['url']}  after {time.monotonic() - begun:.1f} s", soft_wrap=True)
    if not last:
        say(console, found)
    return upload_id


def _to_latest(service: dict[str, Any]) -> None:
    if service["spec"].get("traffic"):
        before = service["spec"]["traffic"]
        service["spec"]["traffic"] = traffic_split.split(service["metadata"]["name"], {"latest": 100}, [], before)


def _short(pod: str) -> str:
    """`hello-00002-deployment-abc-xyz12` as `hello-00002 xyz12`."""
    revision, _, rest = pod.rpartition("-deployment-")
    return f"{revision} {rest.rpartition('-')[2]}" if revision else pod
