"""`knoll traffic`, `knoll rollback`: a Service's traffic split."""

import click
from rich.console import Console

from knoll.cli import output as printed
from knoll.cli import traffic_split
from knoll.cli.client import ApiClient
from knoll.cli.connection import client_options
from knoll.cli.output import output_option
from knoll.cli.service_update import until_ready, write
from knoll.values import kinds, labels
from knoll.values.json import Json


@click.command()
@click.argument("name")
@click.argument("split", nargs=-1, metavar="[REVISION=PERCENT]...")
@click.option("--to-latest", is_flag=True, help="Send all requests to the latest revision, now and after each deploy.")
@output_option
@client_options
def traffic(name: str, split: tuple[str, ...], to_latest: bool, output: str, client: ApiClient, namespace: str) -> None:
    """Show or change a Service's traffic split.

    REVISION is the name of a revision, the part of it after `NAME-`, a tag, or `latest`.
    """
    if to_latest and split:
        raise click.UsageError("--to-latest and REVISION=PERCENT are mutually exclusive")
    if not to_latest and not split:
        _show(client.get(kinds.SERVICE, namespace, name), None, output)
        return
    _shift(client, namespace, name, {"latest": 100} if to_latest else traffic_split.parse(split), output)


@click.command()
@click.argument("name")
@click.option("--to", "revision", help="Revision to roll back to.  [default: the one before the serving revision]")
@output_option
@client_options
def rollback(name: str, revision: str | None, output: str, client: ApiClient, namespace: str) -> None:
    """Send all requests of a Service to an earlier revision."""
    if revision is None:
        serving = traffic_split.largest_share(
            client.get(kinds.SERVICE, namespace, name).get("status", {}).get("traffic", [])
        )
        revision = traffic_split.previous_revision(
            client.list(kinds.REVISION, namespace, f"{labels.SERVICE}={name}"), serving
        )
    _shift(client, namespace, name, {revision: 100}, output)


def _shift(client: ApiClient, namespace: str, name: str, shares: dict[str, int], output: str) -> None:
    before = client.get(kinds.SERVICE, namespace, name)
    listed = client.list(kinds.REVISION, namespace, f"{labels.SERVICE}={name}")
    revisions = [revision["metadata"]["name"] for revision in listed]

    def change(service: Json) -> None:
        old = service["spec"].get("traffic", [])
        service["spec"]["traffic"] = traffic_split.split(name, shares, revisions, old)

    written = write(client, namespace, name, change)
    with Console(stderr=True).status("waiting for all activators"):
        after = until_ready(client, namespace, name, written["metadata"]["generation"])
    _show(before, after, output)


def _show(before: Json, after: Json | None, output: str) -> None:
    first = traffic_split.by_revision(before.get("status", {}).get("traffic", []))
    second = traffic_split.by_revision(after.get("status", {}).get("traffic", [])) if after else {}
    if output != "text":
        printed.show({"before": first, "after": second} if after else first, output)
        return
    table = printed.table("REVISION", *(("BEFORE", "AFTER") if after else ("PERCENT",)))
    for name in dict.fromkeys([*first, *second]):
        cells = [first.get(name, 0), second.get(name, 0)] if after else [first[name]]
        table.add_row(name, *(f"{cell} %" for cell in cells))
    printed.print_table(table)
