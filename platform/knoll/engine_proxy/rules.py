"""The calls of the container engine that the autoscaler and the builder may make, with allowed request bodies. Pure.

Everything that is not listed here is refused. A body is checked field by field, and only the checked fields are sent,
because the engine parses JSON more leniently (field names in any case, repeated fields merged).

Why not an existing proxy: the maintained ones (docker-socket-proxy, wollomatic/socket-proxy) check method and path, and
some of them bind mounts; a client that may create any kind of container has root access to the machine.

Source: Docker Engine API, v1.41 to v1.47.
"""

import json
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from enum import Enum
from typing import Any
from urllib.parse import parse_qs, unquote

from knoll.values.errors import KnollError
from knoll.values.json import JsonValue

AUTOSCALER, BUILDER = "autoscaler", "builder"
PLATFORM_LABEL = "knoll.dev/platform"
SHIM_ANNOTATION = "io.containerd.runc.v2.group"
CAPABILITIES = frozenset({
    "AUDIT_WRITE", "CHOWN", "DAC_OVERRIDE", "FOWNER", "FSETID", "KILL", "MKNOD", "NET_BIND_SERVICE", "NET_RAW",
    "SETFCAP", "SETGID", "SETPCAP", "SETUID", "SYS_CHROOT",
})  # fmt: skip
"""Docker's default capabilities; a container gets others only if the operator allows them."""
MOST_PIDS = 4096
_ID = re.compile(r"[0-9a-f]{64}")
_REFERENCE = r"[^?#\s]+?"


class RefusedError(KnollError):
    """The call is not allowed; the message says which and why."""

    code, reason = 403, "Forbidden"


class MissingError(RefusedError):
    """The target does not exist. The call is not forwarded: by then another platform may have created the target."""

    code, reason = 404, "NotFound"


class PathTarget(Enum):
    """Kind of object that the name in a path must refer to."""

    NONE = "unchecked"
    CONTAINER = "a container of this platform"
    EXEC = "a command in a container of this platform"
    VOLUME = "a volume of this platform"
    NETWORK = "a network of this platform"


@dataclass(frozen=True, slots=True)
class ProxyPolicy:
    """What one proxy socket allows."""

    role: str
    """AUTOSCALER or BUILDER."""
    platform: str
    network: str
    """Name of the instance network."""
    capabilities: frozenset[str] = CAPABILITIES


@dataclass(frozen=True, slots=True)
class Call:
    """An engine call that one or both roles may make."""

    method: str
    path: re.Pattern[str]
    """Without the API version; the group `name` is the name of the target."""
    roles: frozenset[str]
    target: PathTarget = PathTarget.NONE
    query: Callable[[ProxyPolicy, Mapping[str, Sequence[str]]], None] | None = None
    """Raises RefusedError."""
    body: Callable[[ProxyPolicy, JsonValue], JsonValue] | None = None
    """Returns the body to forward. Raises: RefusedError. Without it, a body is forwarded as it is if `has_body`."""
    has_body: bool = False
    makes: PathTarget = PathTarget.NONE
    """Kind of the object whose id the response contains."""


@dataclass(frozen=True, slots=True)
class AllowedCall:
    """A call that is allowed if its target belongs to the platform."""

    call: Call
    name: str
    containers: tuple[str, ...] = field(default=())
    """Other containers that must belong to the platform: those whose namespaces a new container joins."""


def _both(method: str, path: str, target: PathTarget = PathTarget.NONE, **more: Any) -> Call:
    return Call(method, re.compile(path), frozenset({AUTOSCALER, BUILDER}), target, **more)


def _autoscaler(method: str, path: str, target: PathTarget = PathTarget.NONE, **more: Any) -> Call:
    return Call(method, re.compile(path), frozenset({AUTOSCALER}), target, **more)


def _builder(method: str, path: str, target: PathTarget = PathTarget.NONE, **more: Any) -> Call:
    return Call(method, re.compile(path), frozenset({BUILDER}), target, **more)


# --- queries


def _only_ours(policy: ProxyPolicy, query: Mapping[str, Sequence[str]]) -> None:
    """Require that a list is filtered by the platform's label."""
    own_label = f"{PLATFORM_LABEL}={policy.platform}"
    try:
        (text,) = query.get("filters", ())
        labels = json.loads(text)["label"]
    except (ValueError, KeyError, TypeError) as error:
        raise RefusedError(f"a list must have the filter label={own_label}") from error
    if own_label not in (labels if isinstance(labels, list | dict) else ()):
        raise RefusedError(f"a list must have the filter label={own_label}")


def _pull_or_own_import(_: ProxyPolicy, query: Mapping[str, Sequence[str]]) -> None:
    if query.get("fromSrc", ["-"]) != ["-"]:
        raise RefusedError("an image may be imported from the request body only, not from a URL")
    if "fromSrc" in query and query.get("repo", [""])[0] != "knoll/pause":
        raise RefusedError("only the sandbox image knoll/pause may be imported")


def _volumes_only(_: ProxyPolicy, query: Mapping[str, Sequence[str]]) -> None:
    if query.get("type") != ["volume"]:
        raise RefusedError("disk usage may be queried for volumes only: set type=volume")


# --- bodies


FieldCheck = Callable[[ProxyPolicy, str, JsonValue], JsonValue]
"""(policy, name of the field, value) → the value to forward. Raises: RefusedError."""


def _refuse(where: str, value: JsonValue, why: str) -> RefusedError:
    return RefusedError(f"{where}: {json.dumps(value, default=str)[:100]} is not allowed: {why}")


def _is_empty(value: JsonValue) -> bool:
    """Whether a field has a zero value, which is how the engine represents a field that was never set."""
    if isinstance(value, dict):
        return all(_is_empty(each) for each in value.values())
    if isinstance(value, list):
        return all(_is_empty(each) for each in value)
    return value in (None, False, 0, "")


def _fields(
    where: str, body: JsonValue, allowed: Mapping[str, FieldCheck], policy: ProxyPolicy,
    dropped: frozenset[str] = frozenset(),
) -> dict[str, JsonValue]:  # fmt: skip
    """Check the allowed fields of an object and return them. Other fields must be empty, and are omitted.

    Args: dropped: fields that are omitted whatever their value, so that the engine's default applies.
    """
    if not isinstance(body, dict):
        raise _refuse(where, body, "expected an object")
    kept = {}
    for name, value in body.items():
        if name in allowed:
            kept[name] = allowed[name](policy, f"{where}.{name}", value)
        elif name not in dropped and not _is_empty(value):
            raise _refuse(f"{where}.{name}", value, "this field is not allowed")
    return kept


def _any(_: ProxyPolicy, where: str, value: JsonValue) -> JsonValue:
    return value


def _number(_: ProxyPolicy, where: str, value: JsonValue) -> JsonValue:
    if value is not None and (not isinstance(value, int) or isinstance(value, bool) or value < 0):
        raise _refuse(where, value, "expected a non-negative number")
    return value


def _flag(_: ProxyPolicy, where: str, value: JsonValue) -> JsonValue:
    if not isinstance(value, bool):
        raise _refuse(where, value, "expected true or false")
    return value


def _one_of(*allowed: str) -> FieldCheck:
    def check(_: ProxyPolicy, where: str, value: JsonValue) -> JsonValue:
        if not isinstance(value, str) or value not in allowed:
            raise _refuse(where, value, f"allowed: {', '.join(map(repr, allowed))}")
        return value

    return check


def _labels(policy: ProxyPolicy, where: str, value: JsonValue) -> JsonValue:
    if not isinstance(value, dict) or value.get(PLATFORM_LABEL) != policy.platform:
        raise _refuse(where, value, f"{PLATFORM_LABEL} must be {policy.platform!r}")
    return value


def _texts(where: str, value: JsonValue) -> Sequence[str]:
    """A list of strings; empty for null. Unlike the engine, this does not accept a single string for a list."""
    if value is None:
        return ()
    if not isinstance(value, list) or not all(isinstance(each, str) for each in value):
        raise _refuse(where, value, "expected a list of strings")
    return value


def _list(_: ProxyPolicy, where: str, value: JsonValue) -> JsonValue:
    _texts(where, value)
    return value


def _strings(*allowed: str) -> FieldCheck:
    def check(_: ProxyPolicy, where: str, value: JsonValue) -> JsonValue:
        for each in _texts(where, value):
            if each not in allowed:
                raise _refuse(where, each, f"allowed: {', '.join(allowed)}")
        return value

    return check


def _added(policy: ProxyPolicy, where: str, value: JsonValue) -> JsonValue:
    for each in _texts(where, value):
        if each.upper().removeprefix("CAP_") not in policy.capabilities:
            raise _refuse(where, each, "containers may not have this capability; KNOLL_ENGINE_CAPABILITIES allows more")
    return value


def _groups(_: ProxyPolicy, where: str, value: JsonValue) -> JsonValue:
    for each in _texts(where, value):
        if not re.fullmatch(r"\d{1,10}", each):
            raise _refuse(where, each, "groups must be numeric: the engine would look a name up in the image")
    return value


def _network_mode(policy: ProxyPolicy, where: str, value: JsonValue) -> JsonValue:
    if value in ("none", policy.network) or _joined(value):
        return value
    raise _refuse(where, value, f"allowed: none, {policy.network}, or the network of a container of this platform")


def _ipc_mode(_: ProxyPolicy, where: str, value: JsonValue) -> JsonValue:
    if value in ("", "none", "private", "shareable") or _joined(value):
        return value
    raise _refuse(where, value, "allowed: a private namespace, or that of a container of this platform")


def _joined(value: JsonValue) -> str:
    """Id of the container whose namespace is joined; empty for none."""
    if not isinstance(value, str) or not value.startswith("container:"):
        return ""
    return value.removeprefix("container:")


def _annotations(_: ProxyPolicy, where: str, value: JsonValue) -> JsonValue:
    if value is not None and (not isinstance(value, dict) or set(value) - {SHIM_ANNOTATION}):
        raise _refuse(where, value, f"allowed: {SHIM_ANNOTATION}")
    return value


def _storage(_: ProxyPolicy, where: str, value: JsonValue) -> JsonValue:
    if value is not None and (not isinstance(value, dict) or set(value) - {"size"}):
        raise _refuse(where, value, "allowed: size")
    return value


def _log(_: ProxyPolicy, where: str, value: JsonValue) -> JsonValue:
    kept = _fields(where, value, {"Type": _one_of("none", "local", "json-file"), "Config": _any}, _)
    if kept.get("Type") == "json-file" and "max-size" not in (kept.get("Config") or {}):
        raise _refuse(where, value, "the size of the log must be limited with max-size")
    if not isinstance(kept.get("Config"), dict | None):
        raise _refuse(where, value, "expected an object in Config")
    options = {"max-size", "max-file", "compress", "mode", "max-buffer-size"}
    if set(kept.get("Config") or {}) - options:
        raise _refuse(where, value, f"allowed options: {', '.join(sorted(options))}")
    return kept


def _mounts(policy: ProxyPolicy, where: str, value: JsonValue) -> JsonValue:
    if not isinstance(value, list | None):
        raise _refuse(where, value, "expected a list")
    return [_mount(policy, f"{where}[{number}]", each) for number, each in enumerate(value or ())]


def _mount(policy: ProxyPolicy, where: str, value: JsonValue) -> JsonValue:
    def source(_: ProxyPolicy, place: str, name: JsonValue) -> JsonValue:
        if not isinstance(name, str) or not name.startswith(f"{policy.platform}."):
            raise _refuse(place, name, f"must be {PathTarget.VOLUME.value}")
        return name

    options = lambda _, place, given: _fields(  # noqa: E731
        place, given, {"NoCopy": _flag, "Subpath": _any}, policy
    )
    allowed = {
        "Type": _one_of("volume"), "Source": source, "Target": _any, "ReadOnly": _flag, "VolumeOptions": options,
    }  # fmt: skip
    kept = _fields(where, value, allowed, policy)
    if "Type" not in kept or "Source" not in kept:
        raise _refuse(where, value, "a mount needs Type and Source")
    return kept


_NAMES = dict.fromkeys(("Dns", "DnsOptions", "DnsSearch"), _list)
_LIMITS = dict.fromkeys(
    ("CpuShares", "CpuPeriod", "CpuQuota", "NanoCpus", "Memory", "MemoryReservation", "MemorySwap"), _number
)
_HOST_CONFIG: dict[str, FieldCheck] = {
    **_NAMES, **_LIMITS,
    "Annotations": _annotations,
    "NetworkMode": _network_mode,
    "IpcMode": _ipc_mode,
    "SecurityOpt": _strings("no-new-privileges", "no-new-privileges:true", "seccomp=unconfined"),
    "CapDrop": _list,
    "CapAdd": _added,
    "GroupAdd": _groups,
    "PidsLimit": _number,
    "ReadonlyRootfs": _flag,
    "LogConfig": _log,
    "RestartPolicy": lambda policy, where, value: _fields(where, value, {"Name": _one_of("", "no")}, policy),
    "Mounts": _mounts,
    "Tmpfs": _any,
    "StorageOpt": _storage,
}  # fmt: skip
_DROPPED = frozenset({"MaskedPaths", "ReadonlyPaths", "CgroupnsMode", "Runtime", "ShmSize", "ConsoleSize", "Isolation"})
"""Fields that the engine fills in by default and reports for a container; omitted when the container is recreated."""
_CONTAINER = {
    **dict.fromkeys(
        ("Image", "Hostname", "Domainname", "Env", "Healthcheck", "Entrypoint", "Cmd", "User", "WorkingDir", "Tty",
         "OpenStdin", "StdinOnce", "AttachStdin", "AttachStdout", "AttachStderr", "StopSignal", "StopTimeout", "Shell",
         "ArgsEscaped"), _any,
    ),
    "Labels": _labels,
    "HostConfig": lambda policy, where, value: _host_config(policy, where, value),
}  # fmt: skip


def _host_config(policy: ProxyPolicy, where: str, value: JsonValue) -> JsonValue:
    kept = _fields(where, value, _HOST_CONFIG, policy, _DROPPED)
    if "NetworkMode" not in kept:
        raise _refuse(f"{where}.NetworkMode", None, "required")
    if not 0 < int(kept.get("PidsLimit") or 0) <= MOST_PIDS:
        raise _refuse(f"{where}.PidsLimit", kept.get("PidsLimit"), f"must be between 1 and {MOST_PIDS}")
    if not any(str(each).startswith("no-new-privileges") for each in kept.get("SecurityOpt") or ()):
        raise _refuse(f"{where}.SecurityOpt", kept.get("SecurityOpt"), "must contain no-new-privileges")
    if "ALL" not in (kept.get("CapDrop") or ()):
        raise _refuse(f"{where}.CapDrop", kept.get("CapDrop"), "must contain ALL; CapAdd can add some back")
    if "seccomp=unconfined" in (kept.get("SecurityOpt") or ()) and kept.get("CapAdd"):
        raise _refuse(
            f"{where}.SecurityOpt", kept["SecurityOpt"], "seccomp=unconfined is not allowed together with CapAdd"
        )
    return kept


def _create_container(policy: ProxyPolicy, body: JsonValue) -> JsonValue:
    kept = _fields("container", body, _CONTAINER, policy)
    for name in ("Image", "Labels", "HostConfig"):
        if name not in kept:
            raise _refuse(f"container.{name}", None, "required")
    return kept


def _create_exec(policy: ProxyPolicy, body: JsonValue) -> JsonValue:
    allowed = dict.fromkeys(
        ("Cmd", "AttachStdin", "AttachStdout", "AttachStderr", "Tty", "Env", "WorkingDir", "ConsoleSize", "DetachKeys"),
        _any,
    )
    return _fields("exec", body, allowed, policy)


def _start_exec(policy: ProxyPolicy, body: JsonValue) -> JsonValue:
    return _fields("exec", body, {"Detach": _flag, "Tty": _flag, "ConsoleSize": _any}, policy)


def _create_volume(policy: ProxyPolicy, body: JsonValue) -> JsonValue:
    def name(_: ProxyPolicy, where: str, value: JsonValue) -> JsonValue:
        if not isinstance(value, str) or not value.startswith(f"{policy.platform}."):
            raise _refuse(where, value, f"must start with {policy.platform}.")
        return value

    kept = _fields("volume", body, {"Name": name, "Labels": _labels, "Driver": _one_of("", "local")}, policy)
    if "Name" not in kept or "Labels" not in kept:
        raise _refuse("volume", body, "Name and Labels are required")
    return kept


def _create_network(policy: ProxyPolicy, body: JsonValue) -> JsonValue:
    def options(_: ProxyPolicy, where: str, value: JsonValue) -> JsonValue:
        if not isinstance(value, dict) or any(not key.startswith("com.docker.network.bridge.") for key in value):
            raise _refuse(where, value, "allowed: options of the bridge driver")
        return value

    allowed = {"Name": _one_of(policy.network), "Driver": _one_of("bridge"), "Labels": _labels, "Options": options}
    kept = _fields("network", body, {**allowed, "CheckDuplicate": _flag}, policy)
    if not {"Name", "Driver", "Labels"} <= kept.keys():
        raise _refuse("network", body, "Name, Driver and Labels are required")
    return kept


_C = r"/containers/(?P<name>[^/]+)"
CALLS: tuple[Call, ...] = (
    _both("GET", r"/_ping"),
    _both("HEAD", r"/_ping"),
    _both("GET", r"/version"),
    _both("GET", r"/info"),
    _both("GET", rf"/images/(?P<name>{_REFERENCE})/json"),
    _both("POST", r"/images/create", query=_pull_or_own_import, has_body=True),
    _autoscaler("GET", r"/events", query=_only_ours),
    _autoscaler("GET", r"/system/df", query=_volumes_only),
    _autoscaler("GET", r"/containers/json", query=_only_ours),
    _autoscaler("POST", r"/containers/create", body=_create_container, makes=PathTarget.CONTAINER),
    *(_autoscaler("GET", rf"{_C}/{action}", PathTarget.CONTAINER) for action in ("json", "logs", "stats", "archive")),
    _autoscaler("HEAD", rf"{_C}/archive", PathTarget.CONTAINER),
    _autoscaler("PUT", rf"{_C}/archive", PathTarget.CONTAINER, has_body=True),
    *(
        _autoscaler("POST", rf"{_C}/{action}", PathTarget.CONTAINER)
        for action in ("start", "stop", "kill", "wait", "rename", "pause", "unpause")
    ),
    _autoscaler("DELETE", _C, PathTarget.CONTAINER),
    _autoscaler("POST", rf"{_C}/exec", PathTarget.CONTAINER, body=_create_exec, makes=PathTarget.EXEC),
    _autoscaler("POST", r"/exec/(?P<name>[^/]+)/start", PathTarget.EXEC, body=_start_exec),
    _autoscaler("GET", r"/exec/(?P<name>[^/]+)/json", PathTarget.EXEC),
    _autoscaler("GET", r"/volumes", query=_only_ours),
    _autoscaler("POST", r"/volumes/create", body=_create_volume),
    _autoscaler("GET", r"/volumes/(?P<name>[^/]+)", PathTarget.VOLUME),
    _autoscaler("DELETE", r"/volumes/(?P<name>[^/]+)", PathTarget.VOLUME),
    _autoscaler("GET", r"/networks", query=_only_ours),
    _autoscaler("POST", r"/networks/create", body=_create_network),
    _autoscaler("GET", r"/networks/(?P<name>[^/]+)", PathTarget.NETWORK),
    _autoscaler("DELETE", r"/networks/(?P<name>[^/]+)", PathTarget.NETWORK),
    _builder("GET", r"/images/json"),
    _builder("GET", rf"/distribution/(?P<name>{_REFERENCE})/json"),
    _builder("POST", rf"/images/(?P<name>{_REFERENCE})/tag"),
    _builder("POST", rf"/images/(?P<name>{_REFERENCE})/push", has_body=True),
    _builder("POST", r"/images/load", has_body=True),
    _builder("DELETE", rf"/images/(?P<name>{_REFERENCE})"),
    _builder("GET", rf"/images/(?P<name>{_REFERENCE})/get"),
)
_VERSION = re.compile(r"/v1\.\d{1,3}(?=/)")
_PATH = re.compile(r"/[A-Za-z0-9._~:@/%+-]*")


def judge(policy: ProxyPolicy, method: str, target: str) -> AllowedCall:
    """Return the allowed call that a request line matches.

    Args: target: path and query as received.

    Raises: RefusedError.
    """
    path, _, text = target.partition("?")
    plain = unquote(path)
    if not _PATH.fullmatch(path) or "//" in path or {".", ".."} & set(plain.split("/")) or "%" in plain or "#" in text:
        raise RefusedError(f"{path[:100]} is not a path of the engine's API")
    plain = _VERSION.sub("", plain, count=1)
    for call in CALLS:
        if call.method == method and policy.role in call.roles and (match := call.path.fullmatch(plain)):
            if call.query:
                call.query(policy, parse_qs(text, keep_blank_values=True))
            return AllowedCall(call, match.groupdict().get("name") or "")
    raise RefusedError(f"{method} {plain[:100]} is not a call that the {policy.role} may make")


def rewritten(policy: ProxyPolicy, call: Call, body: bytes) -> tuple[bytes, tuple[str, ...]]:
    """Return the body to forward for a call with a checked body, and the containers that must belong to the platform.

    Raises: RefusedError.
    """
    assert call.body is not None
    try:
        parsed = json.loads(body or b"{}")
    except ValueError as error:
        raise RefusedError(f"the body is not JSON: {error}") from error
    kept = call.body(policy, parsed)
    host = kept.get("HostConfig") or {} if call.makes is PathTarget.CONTAINER else {}
    joined = tuple(filter(None, (_joined(host.get("NetworkMode")), _joined(host.get("IpcMode")))))
    return json.dumps(kept, separators=(",", ":")).encode(), joined


def is_ours(policy: ProxyPolicy, target: PathTarget, description: JsonValue) -> bool:
    """Whether what the engine says of a container, a volume or a network makes it the platform's."""
    holder = (description.get("Config") or {}) if target is PathTarget.CONTAINER else description
    return (holder.get("Labels") or {}).get(PLATFORM_LABEL) == policy.platform


def is_id(name: str) -> bool:
    """Whether a name is a whole id of the engine's: those never change whom they name."""
    return bool(_ID.fullmatch(name))
