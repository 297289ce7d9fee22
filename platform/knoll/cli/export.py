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
    """A Service cannot be exported as it is; the message says why."""


@click.command()
@click.argument("services", nargs=-1, metavar="[NAMES]...")
@click.option("-o", "--output", type=click.Choice(["yaml", "json"]), default="yaml", show_default=True)
@click.option(
    "-d", "--dir", "folder", type=click.Path(file_okay=False, path_type=Path),
    help="Write files into this folder, in the order to apply them, instead of printing.",
)  # fmt: skip
@client_options
def export(services: tuple[str, ...], output: str, folder: Path | None, client: ApiClient, namespace: str) -> None:
    """Print Services (all, or those named) as manifests that apply unchanged on Knative.

    A Service that gives traffic to earlier Revisions becomes several manifests of that Service. Each makes one of the
    Revisions, so they must be applied one after the other, each when the one before is ready: use --dir.
    """
    found = [client.get(kinds.SERVICE, namespace, name) for name in services] or (
        client.list(kinds.SERVICE, namespace) if not services else []
    )
    sequences = {service["metadata"]["name"]: replay(service, _revisions(client, service)) for service in found}
    if folder is not None:
        _write(folder, sequences, output)
    else:
        manifests = [manifest for sequence in sequences.values() for manifest in sequence]
        if output == "json":
            show({"apiVersion": "v1", "kind": "List", "items": manifests}, output)
        else:
            echo(yaml.safe_dump_all(manifests, sort_keys=False), nl=False)
    for service in found:
        for note in notes(service):
            echo(f"note: {note}", err=True)
        name = service["metadata"]["name"]
        if folder is None and len(sequences[name]) > 1:
            echo(
                f"note: {name} gives traffic to earlier revisions: its {len(sequences[name])} manifests must be "
                f"applied one by one, each when the one before is ready; `knoll export {name} --dir FOLDER` writes "
                "them as files",
                err=True,
            )
    echo("note: status, server-owned metadata and revisions without traffic are left out", err=True)


def _revisions(client: ApiClient, service: Json) -> dict[str, Json]:
    meta = service["metadata"]
    if not pinned(service):
        return {}
    selector = f"{labels.SERVICE}={meta['name']}"
    found = client.list(kinds.REVISION, meta["namespace"], selector)
    return {revision["metadata"]["name"]: revision for revision in found}


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
    """Names of the Revisions that the traffic names, in the order of their names, each once."""
    targets = service["spec"].get("traffic") or []
    return sorted({target["revisionName"] for target in targets if target.get("revisionName")})


def replay(service: Json, revisions: Mapping[str, Json]) -> list[Json]:
    """The manifests of a Service, in the order to apply them: the last is the Service as it is, and each one before
    makes an earlier Revision that its traffic names.

    Args:
        revisions: by name, at least those that the traffic names.

    Raises:
        ExportError: a Revision that the traffic names is missing.
    """
    last = portable(service)
    own = _own_revision(service)
    earlier = [name for name in pinned(service) if name != own]
    if missing := [name for name in earlier if name not in revisions]:
        raise ExportError(
            f"{service['metadata']['name']} gives traffic to the revision {missing[0]}, which does not exist any more: "
            "change its traffic (`knoll traffic`), then export it"
        )
    earlier.sort(key=lambda name: revisions[name]["metadata"]["creationTimestamp"])
    last["spec"] = {**last["spec"], "template": _named(service, own, len(earlier) + 1)}
    steps = [
        {**last, "spec": {**last["spec"], "template": _template(revisions[name]), "traffic": _TO_LATEST}}
        for name in earlier
    ]
    return [*steps, last]


def _own_revision(service: Json) -> str:
    """The Revision of the template as it is; empty when that is not known."""
    template, status = service["spec"]["template"], service.get("status") or {}
    return str((template.get("metadata") or {}).get("name") or status.get("latestCreatedRevisionName") or "")


def _named(service: Json, own: str, generation: int) -> Json:
    """The template, with its Revision's name where another name would come out, or one that is taken."""
    template: Json = service["spec"]["template"]
    wanted = pinned(service)
    if own and (own in wanted or names.revision_name(service["metadata"]["name"], generation) in wanted):
        return {**template, "metadata": {**(template.get("metadata") or {}), "name": own}}
    return template


def _template(revision: Json) -> Json:
    """The template that makes a Revision again."""
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
    """The spec with the images that the Revision really runs, where others can pull them by digest."""
    spec: Json = dict(revision["spec"])
    status = revision.get("status") or {}
    for containers, statuses in (("containers", "containerStatuses"), ("initContainers", "initContainerStatuses")):
        digests = {one["name"]: one.get("imageDigest", "") for one in status.get(statuses) or ()}
        if spec.get(containers):
            spec[containers] = [
                {**one, "image": digests[one["name"]]}
                if has_registry(one["image"]) and digests.get(one["name"])
                else one
                for one in spec[containers]
            ]
    return spec


def portable(service: Json) -> Json:
    """A Service without what belongs to this platform."""
    meta = {key: value for key, value in service["metadata"].items() if key not in _SERVER_OWNED}
    kept = {key: value for key, value in meta.pop("annotations", {}).items() if key not in _OURS}
    if kept:
        meta["annotations"] = kept
    return {"apiVersion": service["apiVersion"], "kind": "Service", "metadata": meta, "spec": service["spec"]}


def has_registry(image: str) -> bool:
    """Whether an image's name begins with the host of a registry."""
    first = image.partition("/")[0]
    return "/" in image and ("." in first or ":" in first)


def notes(service: Json) -> list[str]:
    """What must be done before the manifests work on a cluster."""
    name = service["metadata"]["name"]
    return [
        f"{name} uses the image {container['image']}, which names no registry: push it to one that your cluster "
        "reaches, and name it there"
        for container in service["spec"]["template"]["spec"]["containers"]
        if not has_registry(container["image"])
    ]
