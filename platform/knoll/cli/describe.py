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
    """Show a Service: its revisions and their instances, who gets how much, what holds and what does not, events."""
    service = client.get(kinds.SERVICE, namespace, name)
    revisions = client.list(kinds.REVISION, namespace, f"{labels.SERVICE}={name}")
    events = client.list(kinds.EVENT, namespace)
    found = described(service, revisions, events)
    if output != "text":
        return printed.show(found, output)
    _print(found)
    return None


def described(service: Json, revisions: list[Json], events: list[Json]) -> Json:
    """What the page says. Pure."""
    meta, state = service["metadata"], service.get("status", {})
    ours = {("Service", meta["name"]), ("Configuration", meta["name"]), ("Route", meta["name"])}
    ours |= {("Revision", one["metadata"]["name"]) for one in revisions}
    seen = [event for event in events if _about(event) in ours]
    newest = sorted(revisions, key=lambda one: str(one["metadata"]["creationTimestamp"]), reverse=True)
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
        "revisions": [_revision(one, state.get("traffic", [])) for one in newest],
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
    # Times are whole seconds; the version tells the order within one.
    return str(event.get("lastTimestamp") or ""), int(event["metadata"]["resourceVersion"])


def _about(event: Json) -> tuple[str, str]:
    named = event.get("involvedObject", {})
    return str(named.get("kind", "")), str(named.get("name", ""))


def _revision(revision: Json, traffic: list[Json]) -> Json:
    name, state = revision["metadata"]["name"], revision.get("status", {})
    mine = [target for target in traffic if target.get("revisionName") == name]
    containers = revision["spec"]["containers"]
    digests = {one["name"]: one.get("imageDigest", "") for one in state.get("containerStatuses", [])}
    return {
        "name": name,
        "traffic": sum(target.get("percent") or 0 for target in mine),
        "tags": {target["tag"]: target.get("url", "") for target in mine if target.get("tag")},
        "ready": ready(revision).get("status", "Unknown"),
        "reason": ready(revision).get("reason", ""),
        "message": ready(revision).get("message", ""),
        "instances": state.get("actualReplicas", 0),
        "wanted": state.get("desiredReplicas", 0),
        "images": [digests.get(one.get("name", "")) or one["image"] for one in containers],
        "created": revision["metadata"]["creationTimestamp"],
    }


def _print(found: Json) -> None:
    facts = printed.table("", "")
    facts.show_header = False
    facts.add_row("Name", f"{found['namespace']}/{found['name']}")
    facts.add_row("URL", found["url"])
    facts.add_row("Inside", found["localUrl"])
    facts.add_row("Age", " by ".join(filter(None, (age(found["created"]), found["creator"]))))
    printed.print_table(facts)

    echo("\nRevisions")
    table = printed.table("  NAME", "TRAFFIC", "TAGS", "READY", "INSTANCES", "AGE", "IMAGE")
    for one in found["revisions"]:
        instances = f"{one['instances']}" + (f" of {one['wanted']}" if one["wanted"] != one["instances"] else "")
        why = one["ready"] if one["ready"] == "True" else f"{one['ready']} {one['reason']}".strip()
        tags = ", ".join(one["tags"])
        image = ", ".join(one["images"])
        table.add_row(f"  {one['name']}", f"{one['traffic']} %", tags, why, instances, age(one["created"]), image)
    printed.print_table(table)

    echo("\nConditions")
    table = printed.table("  TYPE", "STATUS", "SINCE", "REASON", "MESSAGE")
    for one in found["conditions"]:
        since = age(one["lastTransitionTime"])
        table.add_row(f"  {one['type']}", one["status"], since, one["reason"], one_line(one["message"]))
    printed.print_table(table)

    if found["events"]:
        echo("\nEvents")
        table = printed.table("  AGE", "TYPE", "REASON", "OBJECT", "MESSAGE")
        for one in found["events"]:
            table.add_row(f"  {age(one['time'])}", one["type"], one["reason"], one["object"], one_line(one["message"]))
        printed.print_table(table)
