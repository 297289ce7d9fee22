"""The request bodies that the engine proxy allows. Pure.

A body is checked field by field, and only the checked fields are sent, because the engine parses JSON more leniently
(field names in any case, repeated fields merged).

Source: Docker Engine API, v1.41 to v1.47.
"""

import json
import re
from collections.abc import Callable, Mapping, Sequence

from knoll.engine_proxy.policy import PLATFORM_LABEL, PathTarget, ProxyPolicy, RefusedError
from knoll.values.json import JsonValue

SHIM_ANNOTATION = "io.containerd.runc.v2.group"
MOST_PIDS = 4096
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
    if value in ("none", policy.network) or joined_container(value):
        return value
    raise _refuse(where, value, f"allowed: none, {policy.network}, or the network of a container of this platform")


def _ipc_mode(_: ProxyPolicy, where: str, value: JsonValue) -> JsonValue:
    if value in ("", "none", "private", "shareable") or joined_container(value):
        return value
    raise _refuse(where, value, "allowed: a private namespace, or that of a container of this platform")


def joined_container(value: JsonValue) -> str:
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


def create_container(policy: ProxyPolicy, body: JsonValue) -> JsonValue:
    kept = _fields("container", body, _CONTAINER, policy)
    for name in ("Image", "Labels", "HostConfig"):
        if name not in kept:
            raise _refuse(f"container.{name}", None, "required")
    return kept


def create_exec(policy: ProxyPolicy, body: JsonValue) -> JsonValue:
    allowed = dict.fromkeys(
        ("Cmd", "AttachStdin", "AttachStdout", "AttachStderr", "Tty", "Env", "WorkingDir", "ConsoleSize", "DetachKeys"),
        _any,
    )
    return _fields("exec", body, allowed, policy)


def start_exec(policy: ProxyPolicy, body: JsonValue) -> JsonValue:
    return _fields("exec", body, {"Detach": _flag, "Tty": _flag, "ConsoleSize": _any}, policy)


def create_volume(policy: ProxyPolicy, body: JsonValue) -> JsonValue:
    def name(_: ProxyPolicy, where: str, value: JsonValue) -> JsonValue:
        if not isinstance(value, str) or not value.startswith(f"{policy.platform}."):
            raise _refuse(where, value, f"must start with {policy.platform}.")
        return value

    kept = _fields("volume", body, {"Name": name, "Labels": _labels, "Driver": _one_of("", "local")}, policy)
    if "Name" not in kept or "Labels" not in kept:
        raise _refuse("volume", body, "Name and Labels are required")
    return kept


def create_network(policy: ProxyPolicy, body: JsonValue) -> JsonValue:
    def options(_: ProxyPolicy, where: str, value: JsonValue) -> JsonValue:
        if not isinstance(value, dict) or any(not key.startswith("com.docker.network.bridge.") for key in value):
            raise _refuse(where, value, "allowed: options of the bridge driver")
        return value

    allowed = {"Name": _one_of(policy.network), "Driver": _one_of("bridge"), "Labels": _labels, "Options": options}
    kept = _fields("network", body, {**allowed, "CheckDuplicate": _flag}, policy)
    if not {"Name", "Driver", "Labels"} <= kept.keys():
        raise _refuse("network", body, "Name, Driver and Labels are required")
    return kept
