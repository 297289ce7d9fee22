"""Commands about Services: status, deploy, traffic, rollback, logs, export."""

import re
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import click
import msgspec
import yaml
from rich.console import Console
from rich.table import Table

from knoll import kinds
from knoll.cli import shares
from knoll.cli.build import recipe_for, run, upload
from knoll.cli.client import Client
from knoll.cli.target import client_options
from knoll.errors import BadRequestError, ConflictError, KnollError
from knoll.resources import labels

READY_SECONDS = 180
WIDE = 1000
"""Columns of a table: a name or an address that is cut short is of no use."""
_SERVER_OWNED = ("uid", "resourceVersion", "generation", "creationTimestamp", "managedFields", "ownerReferences")
_FORMATS = click.Choice(["text", "json", "yaml"])
Body = dict[str, Any]


class NotReadyError(KnollError):
    """A Service did not become Ready; the message says why."""


def show(found: Any, output: str) -> None:
    """Print for scripts."""
    if output == "json":
        click.echo(msgspec.json.format(msgspec.json.encode(found)).decode())
    else:
        click.echo(yaml.safe_dump(found, sort_keys=False), nl=False)


@click.command()
@click.option("-o", "--output", type=_FORMATS, default="text", show_default=True)
@client_options
def status(output: str, client: Client, namespace: str) -> None:
    """Show the Services of a namespace: whether they are ready, their URLs, who gets how much."""
    rows = [summary(service) for service in client.list(kinds.SERVICE, namespace)]
    if output != "text":
        return show(rows, output)
    if not rows:
        click.echo(f"no Services in {namespace}; `knoll deploy PATH` makes one", err=True)
        return None
    table = Table("NAME", "READY", "URL", "TRAFFIC", "WHY NOT", box=None, pad_edge=False)
    for row in rows:
        table.add_row(row["name"], row["ready"], row["url"], _percents(row["traffic"]), row["message"])
    Console(width=WIDE).print(table)
    return None


def summary(service: Body) -> Body:
    """What people want to know of a Service."""
    found = service.get("status", {})
    ready = _ready(service)
    return {
        "name": service["metadata"]["name"],
        "ready": ready.get("status", "Unknown"),
        "url": found.get("url", ""),
        "latestReadyRevision": found.get("latestReadyRevisionName", ""),
        "traffic": shares.by_revision(found.get("traffic", [])),
        "message": "" if ready.get("status") == "True" else ready.get("message", ""),
    }


@click.command()
@click.argument("source", type=click.Path(exists=True, file_okay=False, path_type=Path), default=".")
@click.option("--name", help="Name of the Service.  [default: the folder's]")
@click.option("-f", "--file", "dockerfile", default="Dockerfile", show_default=True, help="Dockerfile in the source.")
@click.option("-e", "--env", multiple=True, metavar="NAME=VALUE", help="Environment variable of the app.")
@click.option("-o", "--output", type=_FORMATS, default="text", show_default=True)
@client_options
def deploy(
    source: Path,
    name: str | None,
    dockerfile: str,
    env: tuple[str, ...],
    output: str,
    client: Client,
    namespace: str,
) -> None:
    """Build the folder SOURCE and serve it: a new revision of its Service, and a URL."""
    name = name or _name_of(source)
    variables = dict(_variable(text) for text in env)
    console = Console(stderr=True)
    upload_id = upload(client, source, dockerfile, console, recipe_for(source, dockerfile))
    tag = f"{name}:{upload_id.removeprefix('sha256-')[:12]}"
    run(client, namespace, tag, {"dockerfile": dockerfile, "source": {"upload": {"id": upload_id}}}, console)
    written = _written(client, namespace, name, lambda service: _with_image(service, tag, variables))
    with console.status(f"waiting until {name} is ready"):
        service = until_ready(client, namespace, name, written["metadata"]["generation"])
    found = summary(service)
    if output != "text":
        return show(found, output)
    click.echo(f"{found['url']}")
    console.print(f"[bold]revision[/] {found['latestReadyRevision']}   [bold]traffic[/] {_percents(found['traffic'])}")
    console.print(f"[bold]call it[/]  curl {found['url']}", soft_wrap=True)
    if not found["traffic"].get(found["latestReadyRevision"]):
        console.print(f"No request goes to it yet: knoll traffic {name} --to-latest")
    return None


@click.command()
@click.argument("name")
@click.argument("split", nargs=-1, metavar="[REVISION=PERCENT]...")
@click.option("--to-latest", is_flag=True, help="All requests to the newest revision, now and after each deploy.")
@client_options
def traffic(name: str, split: tuple[str, ...], to_latest: bool, client: Client, namespace: str) -> None:
    """Show or change who gets how much of a Service's requests.

    REVISION is a revision's name, what follows `NAME-` in it, a tag, or `latest`.
    """
    if to_latest and split:
        raise click.UsageError("--to-latest and REVISION=PERCENT exclude each other")
    if not to_latest and not split:
        _table(client.get(kinds.SERVICE, namespace, name), None)
        return
    _shift(client, namespace, name, {"latest": 100} if to_latest else shares.parsed(split))


@click.command()
@click.argument("name")
@click.option("--to", "revision", help="Revision to go back to.  [default: the one before that which serves]")
@client_options
def rollback(name: str, revision: str | None, client: Client, namespace: str) -> None:
    """Give all requests of a Service to an earlier revision."""
    if revision is None:
        serving = shares.most(client.get(kinds.SERVICE, namespace, name).get("status", {}).get("traffic", []))
        revision = shares.before_that(client.list(kinds.REVISION, namespace, f"{labels.SERVICE}={name}"), serving)
    _shift(client, namespace, name, {revision: 100})


@click.command()
@click.argument("name")
@click.option("-f", "--follow", is_flag=True, help="Go on with what is written from now on.")
@click.option("--tail", default=100, show_default=True, help="Lines of each instance to begin with.")
@client_options
def logs(name: str, follow: bool, tail: int, client: Client, namespace: str) -> None:
    """Show what the instances of a Service write."""
    client.get(kinds.SERVICE, namespace, name)
    pods = [pod["metadata"]["name"] for pod in client.list(kinds.POD, namespace, f"{labels.SERVICE}={name}")]
    if not pods:
        click.echo(f"{name} has no instance just now; a request starts one", err=True)
        return

    def one(pod: str) -> None:
        for line in client.pod_log(namespace, pod, "user-container", follow=follow, tail=tail):
            click.echo(f"{pod} {line}" if len(pods) > 1 else line)

    threads = [threading.Thread(target=one, args=[pod], daemon=True) for pod in pods]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()


@click.command()
@click.argument("names", nargs=-1)
@client_options
def export(names: tuple[str, ...], client: Client, namespace: str) -> None:
    """Print Services (all, or those named) as manifests that apply unchanged on Knative."""
    if names:
        found = [client.get(kinds.SERVICE, namespace, name) for name in names]
    else:
        found = client.list(kinds.SERVICE, namespace)
    click.echo(yaml.safe_dump_all([portable(service) for service in found], sort_keys=False), nl=False)
    for service in found:
        for container in service["spec"]["template"]["spec"]["containers"]:
            first = container["image"].partition("/")[0]
            if "/" not in container["image"] or not ("." in first or ":" in first):
                click.echo(
                    f"note: {service['metadata']['name']} uses the image {container['image']}, which names no "
                    "registry: push it to one that your cluster reaches, and name it there",
                    err=True,
                )
    click.echo("note: status, server-owned metadata and earlier revisions are left out", err=True)


def portable(service: Body) -> Body:
    """A Service without what belongs to this platform."""
    meta = {key: value for key, value in service["metadata"].items() if key not in _SERVER_OWNED}
    kept = {key: value for key, value in meta.pop("annotations", {}).items() if not _ours(key)}
    if kept:
        meta["annotations"] = kept
    return {"apiVersion": service["apiVersion"], "kind": "Service", "metadata": meta, "spec": service["spec"]}


def _ours(annotation: str) -> bool:
    return annotation in (labels.CREATOR, labels.LAST_MODIFIER, "kubectl.kubernetes.io/last-applied-configuration")


def until_ready(client: Client, namespace: str, name: str, generation: int) -> Body:
    """The Service, once it is Ready at this generation. Raises: NotReadyError."""
    deadline = time.monotonic() + READY_SECONDS
    while True:
        service = client.get(kinds.SERVICE, namespace, name)
        ready = _ready(service)
        if service.get("status", {}).get("observedGeneration", 0) >= generation:
            if ready.get("status") == "True":
                return service
            if ready.get("status") == "False":
                raise NotReadyError(
                    f"{name} is not ready: {ready.get('message') or ready.get('reason')}; what served before "
                    f"serves on. See `knoll logs {name}` and `kubectl describe ksvc {name}`"
                )
        if time.monotonic() > deadline:
            raise NotReadyError(
                f"{name} is not ready after {READY_SECONDS} s: {ready.get('message', 'no reason given')}"
            )
        time.sleep(0.1)


def _ready(service: Body) -> Body:
    conditions = service.get("status", {}).get("conditions", [])
    return next((condition for condition in conditions if condition["type"] == "Ready"), {})


def _written(client: Client, namespace: str, name: str, change: Callable[[Body], None]) -> Body:
    """Change a Service, or make it, however many others write it."""
    while True:
        service = client.find(kinds.SERVICE, namespace, name)
        try:
            if service is None:
                service = _new(namespace, name)
                change(service)
                return client.create(kinds.SERVICE, namespace, service)
            change(service)
            return client.replace(kinds.SERVICE, service)
        except ConflictError:
            continue


def _new(namespace: str, name: str) -> Body:
    return {
        "apiVersion": kinds.SERVICE.api_version,
        "kind": "Service",
        "metadata": {"name": name, "namespace": namespace},
        "spec": {"template": {"spec": {"containers": [{}]}}},
    }


def _with_image(service: Body, image: str, variables: dict[str, str]) -> None:
    template = service["spec"]["template"]
    containers = template["spec"]["containers"]
    # Of several, the one with a port takes the requests.
    container = next((one for one in containers if one.get("ports")), containers[0])
    container["image"] = image
    kept = [one for one in container.get("env", []) if one["name"] not in variables]
    if kept or variables:
        container["env"] = [*kept, *({"name": key, "value": value} for key, value in variables.items())]
    # A name of the user's own belongs to one revision.
    template.get("metadata", {}).pop("name", None)


def _shift(client: Client, namespace: str, name: str, wanted: dict[str, int]) -> None:
    before = client.get(kinds.SERVICE, namespace, name)
    revisions = [one["metadata"]["name"] for one in client.list(kinds.REVISION, namespace, f"{labels.SERVICE}={name}")]

    def change(service: Body) -> None:
        old = service["spec"].get("traffic", [])
        service["spec"]["traffic"] = shares.split(name, wanted, revisions, old)

    written = _written(client, namespace, name, change)
    with Console(stderr=True).status("waiting until every proxy knows"):
        after = until_ready(client, namespace, name, written["metadata"]["generation"])
    _table(before, after)


def _table(before: Body, after: Body | None) -> None:
    first = shares.by_revision(before.get("status", {}).get("traffic", []))
    second = shares.by_revision(after.get("status", {}).get("traffic", [])) if after else {}
    table = Table("REVISION", *(("BEFORE", "AFTER") if after else ("PERCENT",)), box=None, pad_edge=False)
    for name in dict.fromkeys([*first, *second]):
        cells = [first.get(name, 0), second.get(name, 0)] if after else [first[name]]
        table.add_row(name, *(f"{cell} %" for cell in cells))
    Console(width=WIDE).print(table)


def _percents(found: dict[str, int]) -> str:
    return ", ".join(f"{name} {percent} %" for name, percent in found.items() if percent) or "none"


def _name_of(source: Path) -> str:
    name = re.sub(r"[^a-z0-9]+", "-", source.resolve().name.lower()).strip("-")[:50].strip("-")
    if not name or not name[0].isalpha():
        raise BadRequestError(f"no Service can be named after the folder {source.resolve()}: say --name")
    return name


def _variable(text: str) -> tuple[str, str]:
    name, found, value = text.partition("=")
    if not found or not name:
        raise click.BadParameter(f"{text!r} is not NAME=VALUE", param_hint="--env")
    return name, value
