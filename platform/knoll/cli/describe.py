"""`knoll describe`: one Service with its revisions, traffic, conditions and events on one page."""

import click

from knoll.cli import output as printed
from knoll.cli.client import ApiClient
from knoll.cli.connection import client_options
from knoll.cli.output import age, one_line, output_option
from knoll.cli.service_update import ready
from knoll.cli.services import summary
from knoll.cli.terminal import echo
from knoll.values import kinds, labels
from knoll.values.json import Json

LAST_EVENTS = 10


@click.command()
@click.argument("name")
@output_option
@client_options
def describe(name: str, output: str, client: ApiClient, namespace: str) -> None:
    """Show a Service: its revisions, instances, traffic split, conditions and events."""
    service = client.get(kinds.SERVICE, namespace, name)
    revisions = client.list(kinds.REVISION, namespace, f"{labels.SERVICE}={name}")
    events = client.list(kinds.EVENT, namespace)
    description = described(service, revisions, events)
    if output != "text":
        return printed.show(description, output)
    _print(description)
    return None


def described(service: Json, revisions: list[Json], events: list[Json]) -> Json:
    """Return the description of a Service."""
    meta, state = service["metadata"], service.get("status", {})
    ours = {("Service", meta["name"]), ("Configuration", meta["name"]), ("Route", meta["name"])}
    ours |= {("Revision", revision["metadata"]["name"]) for revision in revisions}
    seen = [event for event in events if _about(event) in ours]
    newest = sorted(revisions, key=lambda revision: str(revision["metadata"]["creationTimestamp"]), reverse=True)
    return {
        **summary(service),
        "namespace": meta["namespace"],
        "localUrl": state.get("address", {}).get("url", ""),
        "created": meta["creationTimestamp"],
        "creator": meta.get("annotations", {}).get(labels.CREATOR, ""),
        "conditions": [
            {key: condition.get(key, "") for key in ("type", "status", "reason", "message", "lastTransitionTime")}
            for condition in state.get("conditions", [])
        ],
        "revisions": [_revision(revision, state.get("traffic", [])) for revision in newest],
        "events": [
            {
                "time": event.get("lastTimestamp") or event["metadata"]["creationTimestamp"],
                "type": event.get("type", ""),
                "reason": event.get("reason", ""),
                "object": "/".join(_about(event)),
                "message": event.get("message", ""),
            }
            for event in sorted(seen, key=_order)[-LAST_EVENTS:]
        ],
    }


def _order(event: Json) -> tuple[str, int]:
    # Times are cut to whole seconds; the resource version gives the order within one.
    return str(event.get("lastTimestamp") or ""), int(event["metadata"]["resourceVersion"])


def _about(event: Json) -> tuple[str, str]:
    named = event.get("involvedObject", {})
    return str(named.get("kind", "")), str(named.get("name", ""))


def _revision(revision: Json, traffic: list[Json]) -> Json:
    name, state = revision["metadata"]["name"], revision.get("status", {})
    mine = [target for target in traffic if target.get("revisionName") == name]
    containers = revision["spec"]["containers"]
    digests = {status["name"]: status.get("imageDigest", "") for status in state.get("containerStatuses", [])}
    return {
        "name": name,
        "traffic": sum(target.get("percent") or 0 for target in mine),
        "tags": {target["tag"]: target.get("url", "") for target in mine if target.get("tag")},
        "ready": ready(revision).get("status", "Unknown"),
        "reason": ready(revision).get("reason", ""),
        "message": ready(revision).get("message", ""),
        "instances": state.get("actualReplicas", 0),
        "wanted": state.get("desiredReplicas", 0),
        "images": [digests.get(container.get("name", "")) or container["image"] for container in containers],
        "created": revision["metadata"]["creationTimestamp"],
    }


def _print(description: Json) -> None:
    facts = printed.table("", "")
    facts.show_header = False
    facts.add_row("Name", f"{description['namespace']}/{description['name']}")
    facts.add_row("URL", description["url"])
    facts.add_row("Inside", description["localUrl"])
    facts.add_row("Age", " by ".join(filter(None, (age(description["created"]), description["creator"]))))
    printed.print_table(facts)

    echo("\nRevisions")
    table = printed.table("  NAME", "TRAFFIC", "TAGS", "READY", "INSTANCES", "AGE", "IMAGE")
    for revision in description["revisions"]:
        actual, desired = revision["instances"], revision["wanted"]
        table.add_row(
            f"  {revision['name']}",
            f"{revision['traffic']} %",
            ", ".join(revision["tags"]),
            revision["ready"] if revision["ready"] == "True" else f"{revision['ready']} {revision['reason']}".strip(),
            f"{actual}" if actual == desired else f"{actual} of {desired}",
            age(revision["created"]),
            ", ".join(revision["images"]),
        )
    printed.print_table(table)

    echo("\nConditions")
    table = printed.table("  TYPE", "STATUS", "SINCE", "REASON", "MESSAGE")
    for condition in description["conditions"]:
        since, message = age(condition["lastTransitionTime"]), one_line(condition["message"])
        table.add_row(f"  {condition['type']}", condition["status"], since, condition["reason"], message)
    printed.print_table(table)

    if description["events"]:
        echo("\nEvents")
        table = printed.table("  AGE", "TYPE", "REASON", "OBJECT", "MESSAGE")
        for event in description["events"]:
            message = one_line(event["message"])
            table.add_row(f"  {age(event['time'])}", event["type"], event["reason"], event["object"], message)
        printed.print_table(table)
