"""Defaults and validation of the Kubernetes kinds that are stored. Pure."""

import base64
import binascii
import re
from collections.abc import Callable, Mapping

from api.auth.authorization import RBAC, ROLES
from api.schema.core_models import MODELS
from knoll.config.egress import parse_egress
from knoll.config.platform import check_config_map
from knoll.config.security import EGRESS_ALLOW_ANNOTATION, EGRESS_ANNOTATION, VERDICTS
from knoll.resources.admission import parsing
from knoll.values.errors import FieldError, InvalidResourceError
from knoll.values.json import Json
from knoll.values.kinds import Kind
from knoll.values.labels import SYSTEM_NAMESPACE
from knoll.values.names import printable

Problems = list[FieldError]

MAX_DATA_BYTES = 1024 * 1024
_KEY = re.compile(r"[-._a-zA-Z0-9]+")


def read(body: Json, kind: Kind) -> tuple[Json, list[str]]:
    """Return the body without unknown fields, and the paths of those.

    Raises: InvalidResourceError: values of wrong types.
    """
    model = MODELS.get(kind.id)
    if model is None:
        return body, []
    parsed, unknown = parsing.parse(model, {**body, "apiVersion": kind.api_version})
    return parsed.to_json() if unknown else {**body, "apiVersion": kind.api_version}, unknown


def admit(body: Json, old: Json | None, kind: Kind) -> Json:
    """Return the body with the defaults of its kind. Mutates nothing.

    Args:
        body: from `read`, so with values of the right types.
        old: the stored object; None for a new one.

    Raises:
        InvalidResourceError: with all problems. InvalidConfigError: an invalid value in a ConfigMap of the platform.
    """
    rule = _RULES.get(kind.id)
    if rule is None:
        return body
    problems: Problems = []
    result = rule(dict(body), old, problems)
    if problems:
        raise InvalidResourceError(problems)
    return result


def _config_map(body: Json, old: Json | None, problems: Problems) -> Json:
    if body["metadata"].get("namespace") == SYSTEM_NAMESPACE:
        check_config_map(body["metadata"]["name"], body.get("data") or {})
    _keys_and_size(body, "data", problems, len)
    _keys_and_size(body, "binaryData", problems, _decoded)
    both = set(body.get("data") or ()) & set(body.get("binaryData") or ())
    if both:
        problems.append(FieldError(f"Invalid value: {min(both)!r}: duplicate of key present in data", ("binaryData",)))
    _immutable(body, old, ("data", "binaryData"), problems)
    return _without_empty(body, "data", "binaryData")


def _secret(body: Json, old: Json | None, problems: Problems) -> Json:
    _keys_and_size(body, "data", problems, _decoded)
    _keys_and_size(body, "stringData", problems, len)
    if body.get("stringData"):
        written = {key: base64.b64encode(value.encode()).decode() for key, value in body["stringData"].items()}
        body["data"] = {**(body.get("data") or {}), **written}
    body.pop("stringData", None)
    body["type"] = body.get("type") or "Opaque"
    if old is not None and old.get("type", "Opaque") != body["type"]:
        problems.append(FieldError(f'Invalid value: "{body["type"]}": field is immutable', ("type",)))
    _immutable(body, old, ("data",), problems)
    return _without_empty(body, "data")


def _namespace(body: Json, old: Json | None, problems: Problems) -> Json:
    name = body["metadata"]["name"]
    problems += _egress_problems(body["metadata"].get("annotations") or {})
    labels = body["metadata"].get("labels") or {}
    body["metadata"] = {**body["metadata"], "labels": {**labels, "kubernetes.io/metadata.name": name}}
    body["spec"] = {"finalizers": ["kubernetes"]}
    phase = "Terminating" if body["metadata"].get("deletionTimestamp") else "Active"
    body["status"] = {**(body.get("status") or {}), "phase": phase}
    return body


def _egress_problems(annotations: Mapping[str, str]) -> Problems:
    problems = []
    egress = annotations.get(EGRESS_ANNOTATION)
    if egress is not None and egress not in VERDICTS:
        where = f"metadata.annotations[{EGRESS_ANNOTATION}]"
        problems.append(FieldError(f"Unsupported value: {egress!r}: supported values: {', '.join(VERDICTS)}", (where,)))
    try:
        parse_egress(annotations.get(EGRESS_ALLOW_ANNOTATION, ""))
    except ValueError as error:
        problems.append(FieldError(f"Invalid value: {error}", (f"metadata.annotations[{EGRESS_ALLOW_ANNOTATION}]",)))
    return problems


_TYPES = ("ClusterIP", "ExternalName", "LoadBalancer", "NodePort")


def _service(body: Json, old: Json | None, problems: Problems) -> Json:
    spec = {"type": "ClusterIP", "sessionAffinity": "None", **(body.get("spec") or {})}
    ports = spec.get("ports") or []
    if spec["type"] not in _TYPES:
        problems.append(FieldError(f"Unsupported value: supported values: {', '.join(_TYPES)}", ("spec.type",)))
    if not ports and spec["type"] != "ExternalName" and spec.get("clusterIP") != "None":
        problems.append(FieldError("Required value", ("spec.ports",)))
    if spec["type"] == "ExternalName" and not spec.get("externalName"):
        problems.append(FieldError("Required value", ("spec.externalName",)))
    for at, port in enumerate(ports):
        if not 1 <= port.get("port", 0) <= 65535:
            problems.append(
                FieldError("Invalid value: must be between 1 and 65535, inclusive", (f"spec.ports[{at}].port",))
            )
    spec["ports"] = [{"protocol": "TCP", "targetPort": port.get("port"), **port} for port in ports]
    body["spec"] = spec
    body["status"] = body.get("status") or {"loadBalancer": {}}
    return body


_ACCESS_MODES = ("ReadOnlyMany", "ReadWriteMany", "ReadWriteOnce", "ReadWriteOncePod")


def _volume_claim(body: Json, old: Json | None, problems: Problems) -> Json:
    spec = {"volumeMode": "Filesystem", **(body.get("spec") or {})}
    modes = spec.get("accessModes")
    if not modes:
        problems.append(FieldError("Required value: at least 1 access mode is required", ("spec.accessModes",)))
    elif not set(modes) <= set(_ACCESS_MODES):
        problems.append(
            FieldError(f"Unsupported value: supported values: {', '.join(_ACCESS_MODES)}", ("spec.accessModes",))
        )
    if "storage" not in ((spec.get("resources") or {}).get("requests") or {}):
        problems.append(FieldError("Required value", ("spec.resources.requests.storage",)))
    if spec["volumeMode"] != "Filesystem":
        message = "Unsupported value: supported values: Filesystem (instances have no block devices)"
        problems.append(FieldError(message, ("spec.volumeMode",)))
    free = {"resources": None, "volumeName": None}
    if old is not None and {**old.get("spec", {}), **free} != {**spec, **free}:
        problems.append(FieldError("Forbidden: spec is immutable after creation except resources.requests", ("spec",)))
    body["spec"] = spec
    if uid := body["metadata"].get("uid"):
        spec["volumeName"] = spec.get("volumeName") or f"pvc-{uid}"
    # Bound from the start: its Docker volume is created when the first instance needs it, which cannot fail.
    storage = ((spec.get("resources") or {}).get("requests") or {}).get("storage")
    body["status"] = {"phase": "Bound", "accessModes": modes, "capacity": {"storage": storage}}
    return body


def _event(body: Json, old: Json | None, problems: Problems) -> Json:
    involved = body.get("involvedObject") or {}
    if involved.get("namespace") and involved["namespace"] != body["metadata"].get("namespace"):
        problems.append(FieldError("Invalid value: does not match event.namespace", ("involvedObject.namespace",)))
    return body


_EFFECTS = ("NoExecute", "NoSchedule", "PreferNoSchedule")
_CORDONED = "node.kubernetes.io/unschedulable"
"""Taint of a node that gets no new instances. Source: Kubernetes, "Well-Known Labels, Annotations and Taints"."""


def _node(body: Json, old: Json | None, problems: Problems) -> Json:
    spec = dict(body.get("spec") or {})
    taints = [dict(taint) for taint in spec.get("taints") or ()]
    for at, taint in enumerate(taints):
        if not _KEY.fullmatch(str(taint.get("key", "")).rpartition("/")[2]):
            problems.append(FieldError("Required value", (f"spec.taints[{at}].key",)))
        if taint.get("effect") not in _EFFECTS:
            message = f"Unsupported value: supported values: {', '.join(_EFFECTS)}"
            problems.append(FieldError(message, (f"spec.taints[{at}].effect",)))
    if not spec.get("unschedulable"):
        spec.pop("unschedulable", None)
        taints = [taint for taint in taints if taint.get("key") != _CORDONED]
    elif not any(taint.get("key") == _CORDONED for taint in taints):
        taints.append({"key": _CORDONED, "effect": "NoSchedule"})
    spec["taints"] = taints
    return {**body, "spec": _without_empty(spec, "taints")}


_SUBJECTS = ("Group", "ServiceAccount", "User")


def _role_binding(body: Json, old: Json | None, problems: Problems) -> Json:
    role = {"apiGroup": RBAC, **(body.get("roleRef") or {})}
    if role["apiGroup"] != RBAC or role.get("kind") != "ClusterRole" or role.get("name") not in ROLES:
        message = f"Unsupported value: only the built-in ClusterRoles can be bound here: {', '.join(ROLES)}"
        problems.append(FieldError(message, ("roleRef",)))
    if old is not None and old["roleRef"] != role:
        problems.append(FieldError("Invalid value: cannot change roleRef", ("roleRef",)))
    subjects = []
    for at, subject in enumerate(body.get("subjects") or ()):
        path, kind = f"subjects[{at}]", subject.get("kind")
        if kind not in _SUBJECTS:
            problems.append(
                FieldError(f"Unsupported value: supported values: {', '.join(_SUBJECTS)}", (f"{path}.kind",))
            )
        if not subject.get("name"):
            problems.append(FieldError("Required value", (f"{path}.name",)))
        if kind == "ServiceAccount" and not subject.get("namespace"):
            problems.append(FieldError("Required value", (f"{path}.namespace",)))
        subjects.append(subject if kind == "ServiceAccount" else {"apiGroup": RBAC, **subject})
    return _without_empty({**body, "roleRef": role, "subjects": subjects}, "subjects")


def _decoded(value: str) -> int:
    return len(base64.b64decode(value, validate=True))


def _key_problem(key: str) -> str:
    """Why a key of a ConfigMap or Secret is invalid; empty if it is valid. Source: Kubernetes, `IsConfigMapKey`."""
    if len(key) > 253:
        return "must be no more than 253 characters"
    if not _KEY.fullmatch(key):
        return (
            "a valid config key must consist of alphanumeric characters, '-', '_' or '.' (e.g. 'key.name',  or "
            "'KEY_NAME',  or 'key-name', regex used for validation is '[-._a-zA-Z0-9]+')"
        )
    if key == ".":
        return "must not be '.'"
    return "must not be '..'" if key == ".." else "must not start with '..'" if key.startswith("..") else ""


def _keys_and_size(body: Json, field: str, problems: Problems, size_of: Callable[[str], int]) -> None:
    size = 0
    for key, value in (body.get(field) or {}).items():
        if message := _key_problem(key):
            problems.append(
                FieldError(f'Invalid value: "{printable(key[:253])}": {message}', (f"{field}[{printable(key[:253])}]",))
            )
        try:
            size += len(key) + size_of(value)
        except (binascii.Error, ValueError):
            problems.append(FieldError("Invalid value: must be base64-encoded", (f"{field}[{key[:100]}]",)))
    if size > MAX_DATA_BYTES:
        problems.append(FieldError(f"Too long: may not be more than {MAX_DATA_BYTES} bytes", (field,)))


def _immutable(body: Json, old: Json | None, fields: tuple[str, ...], problems: Problems) -> None:
    if old is None or not old.get("immutable"):
        return
    for field in ("immutable", *fields):
        if (body.get(field) or None) != (old.get(field) or None):
            problems.append(FieldError("Forbidden: field is immutable when `immutable` is set", (field,)))


def _without_empty(body: Json, *fields: str) -> Json:
    return {key: value for key, value in body.items() if key not in fields or value}


AdmissionRule = Callable[[Json, Json | None, Problems], Json]
_RULES: Mapping[str, AdmissionRule] = {
    "configmaps": _config_map,
    "secrets": _secret,
    "namespaces": _namespace,
    "nodes": _node,
    "services": _service,
    "persistentvolumeclaims": _volume_claim,
    "events": _event,
    f"rolebindings.{RBAC}": _role_binding,
    f"clusterrolebindings.{RBAC}": _role_binding,
}
