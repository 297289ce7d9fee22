"""`knoll explain`: why each revision of a Service has its number of instances."""

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
@click.option(
    "--last", type=click.IntRange(1), default=5, show_default=True, help="Number of decisions to show per revision."
)
@output_option
@client_options
def explain(name: str, last: int, output: str, client: ApiClient, namespace: str) -> None:
    """Explain the number of instances of a Service: the autoscaler's latest decisions per revision."""
    client.get(kinds.SERVICE, namespace, name)
    selector = f"{labels.SERVICE}={name}"
    revisions = client.list(kinds.REVISION, namespace, selector)
    explanations = explained(revisions, client.list(kinds.POD_AUTOSCALER, namespace, selector), last)
    if output != "text":
        return printed.show(explanations, output)
    _print(explanations)
    return None


def explained(revisions: list[Json], autoscalers: list[Json], last: int) -> list[Json]:
    """Return the explanation of each revision, newest first.

    Args:
        last: number of decisions per revision, the newest ones.
    """
    by_name = {autoscaler["metadata"]["name"]: autoscaler.get("status", {}) for autoscaler in autoscalers}
    result = []
    for revision in sorted(revisions, key=_created, reverse=True):
        name, state = revision["metadata"]["name"], revision.get("status", {})
        annotations = revision["metadata"].get("annotations", {})
        decisions = by_name.get(name, {}).get("decisions", [])
        result.append(
            {
                "revision": name,
                "instances": state.get("actualReplicas", 0),
                "wanted": state.get("desiredReplicas", 0),
                "notReady": _why_not_ready(revision),
                "scaling": {key: value for key, value in sorted(annotations.items()) if _is_of_scaling(key)},
                "decisions": decisions[-last:],
            }
        )
    return result


def _why_not_ready(revision: Json) -> str:
    """Return the reason and message of a Revision that is not ready or whose instances fail; empty otherwise."""
    listed = revision.get("status", {}).get("conditions", [])
    conditions = {condition["type"]: condition for condition in listed}
    for type_ in ("Ready", "Active"):
        condition = conditions.get(type_, {})
        unhappy = condition.get("status") != "True" and condition.get("reason") not in _ORDINARY
        if unhappy and condition.get("message"):
            return f"{condition.get('reason', '')}: {condition['message']}"
    return ""


_ORDINARY = ("NoTraffic", "Queued", "Deploying", "ResolvingDigests")
"""Reasons of conditions that are not failures."""


def _created(revision: Json) -> tuple[str, str]:
    # Times are cut to whole seconds; names are numbered.
    return str(revision["metadata"]["creationTimestamp"]), str(revision["metadata"]["name"])


def _is_of_scaling(key: str) -> bool:
    return key.startswith(labels.AUTOSCALING_PREFIX) or key in labels.ON_TEMPLATE | labels.OF_ROLLOUT


def _print(explanations: list[Json]) -> None:
    for index, explanation in enumerate(explanations):
        of = f" of {explanation['wanted']}" if explanation["wanted"] != explanation["instances"] else ""
        echo(f"{'' if index == 0 else chr(10)}{explanation['revision']}: {explanation['instances']}{of} instances")
        for key, value in explanation["scaling"].items():
            echo(f"  {key}: {value}")
        if explanation["notReady"]:
            echo(f"  not ready: {explanation['notReady']}")
        for decision in explanation["decisions"]:
            clock = datetime.fromisoformat(decision["time"]).astimezone().strftime("%H:%M:%S")
            echo(f"  {clock} ({age(decision['time'])} ago)  {decision['message']}")
        if not explanation["decisions"]:
            echo("  No scaling decision yet: image digests are not resolved, or no autoscaler is running.")
