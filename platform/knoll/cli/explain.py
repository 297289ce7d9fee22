"""`knoll explain`: why each revision of a Service has as many instances as it has."""

from datetime import datetime

import click

from knoll.cli import output as printed
from knoll.cli.client import ApiClient
from knoll.cli.connection import client_options
from knoll.cli.output import age, output_option
from knoll.cli.terminal import echo
from knoll.values import kinds, labels
from knoll.values.json import Json


@click.command()
@click.argument("name")
@click.option("--last", type=click.IntRange(1), default=5, show_default=True, help="Decisions shown of each revision.")
@output_option
@client_options
def explain(name: str, last: int, output: str, client: ApiClient, namespace: str) -> None:
    """Say why a Service has as many instances as it has: the last decisions of the autoscaler, in words."""
    client.get(kinds.SERVICE, namespace, name)
    selector = f"{labels.SERVICE}={name}"
    revisions = client.list(kinds.REVISION, namespace, selector)
    found = explained(revisions, client.list(kinds.POD_AUTOSCALER, namespace, selector), last)
    if output != "text":
        return printed.show(found, output)
    _print(found)
    return None


def explained(revisions: list[Json], autoscalers: list[Json], last: int) -> list[Json]:
    """What is said of each revision, newest first. Pure.

    Args:
        last: most decisions of each, the newest.
    """
    by_name = {one["metadata"]["name"]: one.get("status", {}) for one in autoscalers}
    result = []
    for revision in sorted(revisions, key=_created, reverse=True):
        name, state = revision["metadata"]["name"], revision.get("status", {})
        annotations = revision["metadata"].get("annotations", {})
        told = by_name.get(name, {}).get("decisions", [])
        result.append(
            {
                "revision": name,
                "instances": state.get("actualReplicas", 0),
                "wanted": state.get("desiredReplicas", 0),
                "notReady": _why_not_ready(revision),
                "scaling": {key: value for key, value in sorted(annotations.items()) if _is_of_scaling(key)},
                "decisions": told[-last:],
            }
        )
    return result


def _why_not_ready(revision: Json) -> str:
    """What a Revision's condition says while it is not ready, or an instance of it fails; empty otherwise."""
    conditions = {one["type"]: one for one in revision.get("status", {}).get("conditions", [])}
    for type_ in ("Ready", "Active"):
        one = conditions.get(type_, {})
        if one.get("status") != "True" and one.get("message") and one.get("reason") not in _ORDINARY:
            return f"{one.get('reason', '')}: {one['message']}"
    return ""


_ORDINARY = ("NoTraffic", "Queued", "Deploying", "ResolvingDigests")
"""Reasons of Revisions with which nothing is wrong."""


def _created(revision: Json) -> tuple[str, str]:
    # Times are whole seconds; names count up.
    return str(revision["metadata"]["creationTimestamp"]), str(revision["metadata"]["name"])


def _is_of_scaling(key: str) -> bool:
    return key.startswith(labels.AUTOSCALING_PREFIX) or key in labels.ON_TEMPLATE | labels.OF_ROLLOUT


def _print(found: list[Json]) -> None:
    for index, one in enumerate(found):
        of = f" of {one['wanted']}" if one["wanted"] != one["instances"] else ""
        echo(f"{'' if index == 0 else chr(10)}{one['revision']}: {one['instances']}{of} instances")
        for key, value in one["scaling"].items():
            echo(f"  {key}: {value}")
        if one["notReady"]:
            echo(f"  not ready: {one['notReady']}")
        for decision in one["decisions"]:
            clock = datetime.fromisoformat(decision["time"]).astimezone().strftime("%H:%M:%S")
            echo(f"  {clock} ({age(decision['time'])} ago)  {decision['message']}")
        if not one["decisions"]:
            echo("  Nothing was decided yet: its images are not resolved, or no autoscaler runs.")
