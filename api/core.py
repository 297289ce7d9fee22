"""Defaults and rules of the built-in kinds that are stored beside Knative's. Pure."""

import base64
import binascii
import re
from collections.abc import Callable, Mapping
from typing import Any

from knoll.errors import FieldError, InvalidResourceError
from knoll.kinds import Kind

Json = dict[str, Any]

MAX_DATA_BYTES = 1024 * 1024
_KEY = re.compile(r"[-._a-zA-Z0-9]{1,253}")


def admit(body: Json, old: Json | None, kind: Kind) -> Json:
    """The body with its kind's defaults. Mutates nothing.

    Raises: InvalidResourceError: with every problem.
    """
    rule = _RULES.get(kind.id)
    if rule is None:
        return body
    problems: list[FieldError] = []
    result = rule(dict(body), old, problems)
    if problems:
        raise InvalidResourceError(problems)
    return result


def _config_map(body: Json, old: Json | None, problems: list[FieldError]) -> Json:
    _text_map(body, "data", problems)
    _base64_map(body, "binaryData", problems)
    both = set(body.get("data") or ()) & set(body.get("binaryData") or ())
    if both:
        problems.append(FieldError(f"Invalid value: {min(both)!r}: duplicate of key present in data", ("binaryData",)))
    _immutable(body, old, ("data", "binaryData"), problems)
    return _without_empty(body, "data", "binaryData")


def _secret(body: Json, old: Json | None, problems: list[FieldError]) -> Json:
    _base64_map(body, "data", problems)
    _text_map(body, "stringData", problems)
    if not problems and body.get("stringData"):
        written = {key: base64.b64encode(value.encode()).decode() for key, value in body["stringData"].items()}
        body["data"] = {**(body.get("data") or {}), **written}
    body.pop("stringData", None)
    body.setdefault("type", "Opaque")
    if not isinstance(body["type"], str) or not body["type"]:
        body["type"] = "Opaque"
    if old is not None and old.get("type", "Opaque") != body["type"]:
        problems.append(FieldError(f'Invalid value: "{body["type"]}": field is immutable', ("type",)))
    _immutable(body, old, ("data",), problems)
    return _without_empty(body, "data")


def _namespace(body: Json, old: Json | None, problems: list[FieldError]) -> Json:
    name = body["metadata"]["name"]
    labels = body["metadata"].get("labels") or {}
    body["metadata"] = {**body["metadata"], "labels": {**labels, "kubernetes.io/metadata.name": name}}
    body["spec"] = {"finalizers": ["kubernetes"]}
    status = {"phase": "Terminating" if body["metadata"].get("deletionTimestamp") else "Active"}
    body["status"] = {**(body.get("status") or {}), **status}
    return body


def _service(body: Json, old: Json | None, problems: list[FieldError]) -> Json:
    spec = body.get("spec")
    if spec is None:
        spec = {}
    if not isinstance(spec, dict):
        problems.append(FieldError("Invalid value: must be an object", ("spec",)))
        return body
    spec = dict(spec)
    spec.setdefault("type", "ClusterIP")
    spec.setdefault("sessionAffinity", "None")
    ports = spec.get("ports") or []
    if not isinstance(ports, list):
        problems.append(FieldError("Invalid value: must be a list", ("spec.ports",)))
        return body
    if not ports and spec["type"] != "ExternalName" and spec.get("clusterIP") != "None":
        problems.append(FieldError("Required value", ("spec.ports",)))
    spec["ports"] = [_port(port, f"spec.ports[{at}]", problems) for at, port in enumerate(ports)]
    if spec["type"] not in ("ClusterIP", "NodePort", "LoadBalancer", "ExternalName"):
        problems.append(
            FieldError(
                "Unsupported value: supported values: ClusterIP, ExternalName, LoadBalancer, NodePort", ("spec.type",)
            )
        )
    if spec["type"] == "ExternalName" and not spec.get("externalName"):
        problems.append(FieldError("Required value", ("spec.externalName",)))
    body["spec"] = spec
    if not body.get("status"):
        body["status"] = {"loadBalancer": {}}
    return body


def _port(port: Any, path: str, problems: list[FieldError]) -> Any:
    if not isinstance(port, dict):
        problems.append(FieldError("Invalid value: must be an object", (path,)))
        return port
    number = port.get("port")
    if isinstance(number, bool) or not isinstance(number, int) or not 1 <= number <= 65535:
        problems.append(FieldError("Invalid value: must be between 1 and 65535, inclusive", (f"{path}.port",)))
    result = {"protocol": "TCP", **port}
    result.setdefault("targetPort", number)
    return result


def _service_account(body: Json, old: Json | None, problems: list[FieldError]) -> Json:
    for field in ("secrets", "imagePullSecrets"):
        if body.get(field) is not None and not isinstance(body[field], list):
            problems.append(FieldError("Invalid value: must be a list", (field,)))
    return body


_QUANTITY = re.compile(r"[+-]?(\d+|\d+\.\d*|\.\d+)([numkMGTPE]|[KMGTPE]i|[eE][+-]?\d+)?")


def _quantities(found: Any, path: str, problems: list[FieldError]) -> None:
    if found is None:
        return
    if not isinstance(found, dict):
        problems.append(FieldError("Invalid value: must be an object", (path,)))
        return
    for key, value in found.items():
        if isinstance(value, bool) or not isinstance(value, str | int) or not _QUANTITY.fullmatch(str(value)):
            problems.append(
                FieldError(
                    f"Invalid value: {str(value)[:60]!r}: must be a quantity such as 100m, 2 or 1Gi", (f"{path}.{key}",)
                )
            )


def _resource_quota(body: Json, old: Json | None, problems: list[FieldError]) -> Json:
    spec = body.get("spec") or {}
    if not isinstance(spec, dict):
        problems.append(FieldError("Invalid value: must be an object", ("spec",)))
        return body
    _quantities(spec.get("hard"), "spec.hard", problems)
    return body


def _volume_claim(body: Json, old: Json | None, problems: list[FieldError]) -> Json:
    spec = body.get("spec")
    if not isinstance(spec, dict):
        problems.append(FieldError("Required value", ("spec",)))
        return body
    modes = spec.get("accessModes")
    known = {"ReadWriteOnce", "ReadOnlyMany", "ReadWriteMany", "ReadWriteOncePod"}
    if not isinstance(modes, list) or not modes:
        problems.append(FieldError("Required value: at least 1 access mode is required", ("spec.accessModes",)))
    elif not all(isinstance(mode, str) and mode in known for mode in modes):
        problems.append(
            FieldError(f"Unsupported value: supported values: {', '.join(sorted(known))}", ("spec.accessModes",))
        )
    resources = spec.get("resources")
    requests = resources.get("requests") if isinstance(resources, dict) else None
    if not isinstance(requests, dict) or "storage" not in requests:
        problems.append(FieldError("Required value", ("spec.resources.requests.storage",)))
    else:
        _quantities(requests, "spec.resources.requests", problems)
    if old is not None:
        before = {**old.get("spec", {}), "resources": None, "volumeName": None}
        if before != {**spec, "resources": None, "volumeName": None} and before != {
            "volumeMode": "Filesystem", **spec, "resources": None, "volumeName": None
        }:  # fmt: skip
            problems.append(
                FieldError("Forbidden: spec is immutable after creation except resources.requests", ("spec",))
            )
    body["spec"] = {"volumeMode": "Filesystem", **spec}
    if not body.get("status"):
        body["status"] = {"phase": "Pending"}
    return body


def _event(body: Json, old: Json | None, problems: list[FieldError]) -> Json:
    involved = body.get("involvedObject")
    if not isinstance(involved, dict):
        problems.append(FieldError("Required value", ("involvedObject",)))
        return body
    for field in ("message", "reason", "type"):
        if body.get(field) is not None and not isinstance(body[field], str):
            problems.append(FieldError("Invalid value: must be text", (field,)))
    return body


def _text_map(body: Json, field: str, problems: list[FieldError]) -> None:
    size = 0
    for key, value in _entries(body, field, problems):
        if not isinstance(value, str):
            problems.append(FieldError("Invalid value: must be text", (f"{field}.{key}",)))
        else:
            size += len(key) + len(value.encode(errors="surrogatepass"))
    _bounded(size, field, problems)


def _base64_map(body: Json, field: str, problems: list[FieldError]) -> None:
    size = 0
    for key, value in _entries(body, field, problems):
        if value is None:
            body[field] = {**body[field], key: ""}
            continue
        try:
            size += len(key) + len(base64.b64decode(value, validate=True))
        except (binascii.Error, TypeError, ValueError):
            problems.append(FieldError("Invalid value: must be base64", (f"{field}.{key}",)))
    _bounded(size, field, problems)


def _bounded(size: int, field: str, problems: list[FieldError]) -> None:
    if size > MAX_DATA_BYTES:
        problems.append(FieldError(f"Too long: may not be more than {MAX_DATA_BYTES} bytes", (field,)))


def _entries(body: Json, field: str, problems: list[FieldError]) -> list[tuple[str, Any]]:
    found = body.get(field)
    if found is None:
        return []
    if not isinstance(found, dict):
        problems.append(FieldError("Invalid value: must be an object", (field,)))
        return []
    for key in found:
        if not _KEY.fullmatch(key) or key in (".", ".."):
            problems.append(
                FieldError(
                    f"Invalid value: {key[:100]!r}: a valid config key must consist of alphanumeric characters, '-', '_' "
                    "or '.'",
                    (f"{field}[{key[:100]}]",),
                )
            )
    return list(found.items())


def _immutable(body: Json, old: Json | None, fields: tuple[str, ...], problems: list[FieldError]) -> None:
    flag = body.get("immutable")
    if flag is not None and not isinstance(flag, bool):
        problems.append(FieldError("Invalid value: must be true or false", ("immutable",)))
    if old is None or not old.get("immutable"):
        return
    for field in ("immutable", *fields):
        if (body.get(field) or None) != (old.get(field) or None):
            problems.append(FieldError("Forbidden: field is immutable when `immutable` is set", (field,)))


def _without_empty(body: Json, *fields: str) -> Json:
    return {key: value for key, value in body.items() if key not in fields or value}


Rule = Callable[[Json, Json | None, list[FieldError]], Json]
_RULES: Mapping[str, Rule] = {
    "configmaps": _config_map,
    "secrets": _secret,
    "namespaces": _namespace,
    "services": _service,
    "serviceaccounts": _service_account,
    "resourcequotas": _resource_quota,
    "persistentvolumeclaims": _volume_claim,
    "events": _event,
}
