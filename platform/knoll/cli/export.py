"""`knoll export`: Services as manifests for Knative."""

from collections.abc import Mapping, Sequence
from pathlib import Path

import click
import msgspec
import yaml

from knoll.cli.client import ApiClient
from knoll.cli.connection import client_options
from knoll.cli.output import show
from knoll.cli.terminal import echo
from knoll.values import kinds, labels, names
from knoll.values.errors import KnollError
from knoll.values.json import Json

_SERVER_OWNED = ("uid", "resourceVersion", "generation", "creationTimestamp", "managedFields", "ownerReferences")
_OURS = (labels.CREATOR, labels.LAST_MODIFIER, labels.LAST_APPLIED)
_OF_REVISIONS = frozenset({*_OURS, *labels.OF_ROLLOUT, labels.ROUTES, labels.ROUTING_STATE_MODIFIED})
_TO_LATEST = [{"latestRevision": True, "percent": 100}]


class ExportError(KnollError):
    """A Service cannot be exported in its current state; the message gives the reason."""


@click.command()
@click.argument("services", nargs=-1, metavar="[NAMES]...")
@click.option("-o", "--output", type=click.Choice(["yaml", "json"]), default="yaml", show_default=True)
@click.option(
    "-d", "--dir", "folder", type=click.Path(file_okay=False, path_type=Path),
    help="Write numbered files to this folder, in the order to apply them, instead of printing.",
)  # fmt: skip
@client_options
def export(services: tuple[str, ...], output: str, folder: Path | None, client: ApiClient, namespace: str) -> None:
    """Print Services (all, or those named) as manifests for Knative.

    A Service that sends traffic to earlier Revisions becomes several manifests, each of which creates one Revision.
    Apply them in order, each after the previous one is ready: use --dir.
    """
    exported = [client.get(kinds.SERVICE, namespace, name) for name in services] or (
        client.list(kinds.SERVICE, namespace) if not services else []
    )
    sequences = {service["metadata"]["name"]: replay(service, _revisions(client, service)) for service in exported}
    if folder is not None:
        _write(folder, sequences, output)
    else:
        manifests = [manifest for sequence in sequences.values() for manifest in sequence]
        if output == "json":
            show({"apiVersion": "v1", "kind": "List", "items": manifests}, output)
        else:
            echo(yaml.safe_dump_all(manifests, sort_keys=False), nl=False)
    for service in exported:
        for note in notes(service):
            echo(f"note: {note}", err=True)
        name = service["metadata"]["name"]
        if folder is None and len(sequences[name]) > 1:
            echo(
                f"note: {name} sends traffic to earlier revisions: apply its {len(sequences[name])} manifests in "
                f"order, each after the previous one is ready; `knoll export {name} --dir FOLDER` writes them to files",
                err=True,
            )
    echo("note: status, server-owned metadata and revisions without traffic are not exported", err=True)


def _revisions(client: ApiClient, service: Json) -> dict[str, Json]:
    meta = service["metadata"]
    if not pinned(service):
        return {}
    selector = f"{labels.SERVICE}={meta['name']}"
    revisions = client.list(kinds.REVISION, meta["namespace"], selector)
    return {revision["metadata"]["name"]: revision for revision in revisions}


def _write(folder: Path, sequences: Mapping[str, Sequence[Json]], output: str) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    for name, sequence in sequences.items():
        width, namespace = len(str(len(sequence))), sequence[0]["metadata"]["namespace"]
        for at, manifest in enumerate(sequence, 1):
            file = folder / (f"{name}.{output}" if len(sequence) == 1 else f"{name}.{at:0{width}}.{output}")
            text = yaml.safe_dump(manifest, sort_keys=False)
            file.write_text(text if output == "yaml" else _json(manifest))
        files = f"{folder}/{name}.{output}" if len(sequence) == 1 else f"{folder}/{name}.*.{output}"
        echo(
            f'for file in {files}; do kubectl apply -f "$file" && '
            f"kubectl wait -n {namespace} ksvc/{name} --for=condition=Ready --timeout=600s || break; done"
        )


def _json(manifest: Json) -> str:
    return msgspec.json.format(msgspec.json.encode(manifest)).decode() + "\n"


def pinned(service: Json) -> list[str]:
    """Return the Revision names in `spec.traffic`, sorted, without duplicates."""
    targets = service["spec"].get("traffic") or []
    return sorted({target["revisionName"] for target in targets if target.get("revisionName")})


def replay(service: Json, revisions: Mapping[str, Json]) -> list[Json]:
    """Return the manifests of a Service in the order to apply them.

    The last one is the current Service; each one before it creates an earlier Revision that `spec.traffic` names.

    Args:
        revisions: by name, at least those in `spec.traffic`.

    Raises:
        ExportError: a Revision in `spec.traffic` is missing.
    """
    last = portable(service)
    own = _own_revision(service)
    earlier = [name for name in pinned(service) if name != own]
    if missing := [name for name in earlier if name not in revisions]:
        raise ExportError(
            f"{service['metadata']['name']} sends traffic to revision {missing[0]}, which no longer exists: change its "
            "traffic split with `knoll traffic`, then export it"
        )
    earlier.sort(key=lambda name: revisions[name]["metadata"]["creationTimestamp"])
    last["spec"] = {**last["spec"], "template": _named(service, own, len(earlier) + 1)}
    steps = [
        {**last, "spec": {**last["spec"], "template": _template(revisions[name]), "traffic": _TO_LATEST}}
        for name in earlier
    ]
    return [*steps, last]


def _own_revision(service: Json) -> str:
    """Return the name of the current template's Revision; empty if unknown."""
    template, status = service["spec"]["template"], service.get("status") or {}
    return str((template.get("metadata") or {}).get("name") or status.get("latestCreatedRevisionName") or "")


def _named(service: Json, own: str, generation: int) -> Json:
    """Return the template, with its Revision's name where the generated one would differ or is taken."""
    template: Json = service["spec"]["template"]
    pins = pinned(service)
    if own and (own in pins or names.revision_name(service["metadata"]["name"], generation) in pins):
        return {**template, "metadata": {**(template.get("metadata") or {}), "name": own}}
    return template


def _template(revision: Json) -> Json:
    """Return the template that recreates a Revision."""
    meta = revision["metadata"]
    made: Json = {"name": meta["name"]}
    for field in ("labels", "annotations"):
        kept = {
            key: value
            for key, value in (meta.get(field) or {}).items()
            if key not in _OF_REVISIONS and not (field == "labels" and key.startswith(labels.SERVING))
        }
        if kept:
            made[field] = kept
    return {"metadata": made, "spec": _pinned_images(revision)}


def _pinned_images(revision: Json) -> Json:
    """Return the spec with images pinned to the digests that run, where another cluster can pull them."""
    spec: Json = dict(revision["spec"])
    status = revision.get("status") or {}
    for containers, statuses in (("containers", "containerStatuses"), ("initContainers", "initContainerStatuses")):
        digests = {container["name"]: container.get("imageDigest", "") for container in status.get(statuses) or ()}
        if spec.get(containers):
            spec[containers] = [
                {**container, "image": digests[container["name"]]}
                if has_registry(container["image"]) and digests.get(container["name"])
                else container
                for container in spec[containers]
            ]
    return spec


def portable(service: Json) -> Json:
    """Return a Service without the fields that belong to this platform."""
    meta = {key: value for key, value in service["metadata"].items() if key not in _SERVER_OWNED}
    kept = {key: value for key, value in meta.pop("annotations", {}).items() if key not in _OURS}
    if kept:
        meta["annotations"] = kept
    return {"apiVersion": service["apiVersion"], "kind": "Service", "metadata": meta, "spec": service["spec"]}


def has_registry(image: str) -> bool:
    """Return whether an image name starts with a registry host."""
    first = image.partition("/")[0]
    return "/" in image and ("." in first or ":" in first)


def notes(service: Json) -> list[str]:
    """Return what to do before the manifests work on another cluster."""
    name = service["metadata"]["name"]
    return [
        f"{name} uses the image {container['image']}, which has no registry: push it to a registry that your "
        "cluster can reach, and use that name"
        for container in service["spec"]["template"]["spec"]["containers"]
        if not has_registry(container["image"])
    ]
