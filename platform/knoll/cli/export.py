"""`knoll export`: Services as manifests for Knative."""

from typing import Any

import click
import yaml

from knoll import kinds
from knoll.cli.client import Client
from knoll.cli.output import show
from knoll.cli.target import client_options
from knoll.resources import labels

_SERVER_OWNED = ("uid", "resourceVersion", "generation", "creationTimestamp", "managedFields", "ownerReferences")
_OURS = (labels.CREATOR, labels.LAST_MODIFIER, "kubectl.kubernetes.io/last-applied-configuration")


@click.command()
@click.argument("names", nargs=-1)
@click.option("-o", "--output", type=click.Choice(["yaml", "json"]), default="yaml", show_default=True)
@client_options
def export(names: tuple[str, ...], output: str, client: Client, namespace: str) -> None:
    """Print Services (all, or those named) as manifests that apply unchanged on Knative."""
    if names:
        found = [client.get(kinds.SERVICE, namespace, name) for name in names]
    else:
        found = client.list(kinds.SERVICE, namespace)
    manifests = [portable(service) for service in found]
    if output == "json":
        show({"apiVersion": "v1", "kind": "List", "items": manifests}, output)
    else:
        click.echo(yaml.safe_dump_all(manifests, sort_keys=False), nl=False)
    for service in found:
        for note in notes(service):
            click.echo(f"note: {note}", err=True)
    click.echo("note: status, server-owned metadata and earlier revisions are left out", err=True)


def portable(service: dict[str, Any]) -> dict[str, Any]:
    """A Service without what belongs to this platform."""
    meta = {key: value for key, value in service["metadata"].items() if key not in _SERVER_OWNED}
    kept = {key: value for key, value in meta.pop("annotations", {}).items() if key not in _OURS}
    if kept:
        meta["annotations"] = kept
    return {"apiVersion": service["apiVersion"], "kind": "Service", "metadata": meta, "spec": service["spec"]}


def notes(service: dict[str, Any]) -> list[str]:
    """What somebody must do before the manifest works on a cluster."""
    name = service["metadata"]["name"]
    found = []
    for container in service["spec"]["template"]["spec"]["containers"]:
        first = container["image"].partition("/")[0]
        if "/" not in container["image"] or not ("." in first or ":" in first):
            found.append(
                f"{name} uses the image {container['image']}, which names no registry: push it to one that your "
                "cluster reaches, and name it there"
            )
    for target in service["spec"].get("traffic", []):
        if target.get("revisionName"):
            found.append(
                f"{name} gives traffic to the revision {target['revisionName']}, which the cluster does not have: "
                "apply it first, or take the entry out"
            )
    return found
