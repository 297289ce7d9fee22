"""Conversion of v1alpha1 and v1beta1 manifests to v1. Pure; arguments are not mutated.

v1beta1 has the format of v1. v1alpha1 accepts that format too, and the older one with `runLatest`, `pinned`, `release`,
`revisionTemplate`, `container` and traffic targets with `name`.
"""

from collections.abc import Callable, Mapping
from typing import Any

from knoll.values.errors import BadRequestError
from knoll.values.json import Json
from knoll.values.kinds import CONFIGURATION, REVISION, ROUTE, SERVICE, Kind


def converted(kind: Kind, body: Mapping[str, Any]) -> Json:
    """Convert an object to the storage version of its kind.

    Raises:
        BadRequestError: another kind, or an unknown version.
    """
    versions = [f"{kind.group}/{version}" if kind.group else version for version in kind.versions]
    version, name = body.get("apiVersion"), body.get("kind")
    if name != kind.kind or version not in versions:
        raise BadRequestError(
            f"expected kind {kind.kind} of {' or '.join(versions)}, not kind {str(name)[:80]} of {str(version)[:80]}"
        )
    result = {**body, "apiVersion": kind.api_version}
    convert = _OLD_FORMS.get(kind.id)
    spec = result.get("spec")
    if str(version).endswith("/v1alpha1") and convert is not None and isinstance(spec, Mapping):
        result["spec"] = convert(dict(spec))
    return result


def _service(spec: Json) -> Json:
    modes = [mode for mode in ("runLatest", "pinned", "manual", "release") if isinstance(spec.get(mode), Mapping)]
    spec.pop("generation", None)
    if len(modes) == 1 and modes[0] != "manual":
        mode = spec.pop(modes[0])
        configuration = mode.get("configuration")
        if isinstance(configuration, Mapping):
            spec = {**_configuration(dict(configuration)), **spec}
        if modes[0] == "pinned":
            spec["traffic"] = [{"revisionName": mode.get("revisionName"), "percent": 100}]
        elif modes[0] == "release":
            spec["traffic"] = _release(mode)
        else:
            spec["traffic"] = [{"latestRevision": True, "percent": 100}]
    return _route(_configuration(spec))


def _release(mode: Mapping[str, Any]) -> list[Json]:
    revisions, rollout = mode.get("revisions"), mode.get("rolloutPercent") or 0
    names = revisions if isinstance(revisions, list) else []
    share = rollout if isinstance(rollout, int) and len(names) > 1 else 0
    targets = [{**_named(name), "tag": tag} for name, tag in zip(names, ("current", "candidate"), strict=False)]
    for target, percent in zip(targets, (100 - share, share), strict=False):
        target["percent"] = percent
    return [*targets, {"latestRevision": True, "tag": "latest", "percent": 0}]


def _named(name: Any) -> Json:
    return {"latestRevision": True} if name == "@latest" else {"revisionName": name}


def _configuration(spec: Json) -> Json:
    spec.pop("generation", None)
    old = spec.pop("revisionTemplate", None)
    template = spec.get("template", old)
    if isinstance(template, Mapping):
        inner = template.get("spec")
        spec["template"] = {**template, "spec": _revision(dict(inner))} if isinstance(inner, Mapping) else template
    return spec


def _revision(spec: Json) -> Json:
    for field in ("generation", "servingState", "buildName", "buildRef"):
        spec.pop(field, None)
    model = spec.pop("concurrencyModel", None)
    if model == "Single":
        spec.setdefault("containerConcurrency", 1)
    container = spec.get("container")
    if isinstance(container, Mapping) and not spec.get("containers"):
        spec["containers"] = [spec.pop("container")]
    return spec


def _route(spec: Json) -> Json:
    spec.pop("generation", None)
    traffic = spec.get("traffic")
    if isinstance(traffic, list):
        spec["traffic"] = [_target(item) for item in traffic]
    return spec


def _target(item: Any) -> Any:
    if not isinstance(item, Mapping) or "name" not in item or "tag" in item:
        return item
    return {**{key: value for key, value in item.items() if key != "name"}, "tag": item["name"]}


_OLD_FORMS: Mapping[str, Callable[[Json], Json]] = {
    SERVICE.id: _service,
    CONFIGURATION.id: _configuration,
    REVISION.id: _revision,
    ROUTE.id: _route,
}
