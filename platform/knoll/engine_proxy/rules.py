"""What the autoscaler and the builder may ask of the container engine: exact calls, exact shapes of bodies. Pure.

Everything is forbidden that is not named here. A body is checked field by field and written anew from what was checked,
because the engine reads JSON less strictly than we do (names in any case, repeated names merged).

Why it is our own: the maintained proxies (docker-socket-proxy, wollomatic/socket-proxy) judge method and path, some of
them bind mounts; who may create a container of any shape owns the machine.

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

AUTOSCALER, BUILDER = "autoscaler", "builder"
PLATFORM_LABEL = "knoll.dev/platform"
SHIM_ANNOTATION = "io.containerd.runc.v2.group"
CAPABILITIES = frozenset({
    "AUDIT_WRITE", "CHOWN", "DAC_OVERRIDE", "FOWNER", "FSETID", "KILL", "MKNOD", "NET_BIND_SERVICE", "NET_RAW",
    "SETFCAP", "SETGID", "SETPCAP", "SETUID", "SYS_CHROOT",
})  # fmt: skip
"""Docker's own default list: no container gets more, unless the operator says so."""
MOST_PIDS = 4096
_ID = re.compile(r"[0-9a-f]{64}")
_REFERENCE = r"[^?#\s]+?"
Json = Any


class RefusedError(KnollError):
    """The engine is not to be asked this; the message says what and why."""

    code, reason = 403, "Forbidden"


class MissingError(RefusedError):
    """What the engine is asked about does not exist. The engine is not asked again: by then it may be another's."""

    code, reason = 404, "NotFound"


class PathTarget(Enum):
    """What the name in a path must be."""

    NONE = "nothing in particular"
    CONTAINER = "a container of this platform"
    EXEC = "a command in a container of this platform"
    VOLUME = "a volume of this platform"
    NETWORK = "a network of this platform"


@dataclass(frozen=True, slots=True)
class ProxyPolicy:
    """What one proxy allows."""

    role: str
    """AUTOSCALER or BUILDER."""
    platform: str
    network: str
    """Name of the instance network."""
    capabilities: frozenset[str] = CAPABILITIES


@dataclass(frozen=True, slots=True)
class Call:
    """One call of the engine that is allowed to some."""

    method: str
    path: re.Pattern[str]
    """Without the version; group `name` is what `target` is about."""
    roles: frozenset[str]
    target: PathTarget = PathTarget.NONE
    query: Callable[[ProxyPolicy, Mapping[str, Sequence[str]]], None] | None = None
    """Raises RefusedError."""
    body: Callable[[ProxyPolicy, Json], Json] | None = None
    """Makes of a body what is sent. Raises: RefusedError. Without it, a body passes as it is if `has_body`."""
    has_body: bool = False
    makes: PathTarget = PathTarget.NONE
    """The id in the answer is of one."""


@dataclass(frozen=True, slots=True)
class AllowedCall:
    """A call that is allowed, once its target is one of the platform's."""

    call: Call
    name: str
    containers: tuple[str, ...] = field(default=())
    """More containers that must be the platform's: whose namespaces a new one joins."""


def _both(method: str, path: str, target: PathTarget = PathTarget.NONE, **more: Any) -> Call:
    return Call(method, re.compile(path), frozenset({AUTOSCALER, BUILDER}), target, **more)


def _autoscaler(method: str, path: str, target: PathTarget = PathTarget.NONE, **more: Any) -> Call:
    return Call(method, re.compile(path), frozenset({AUTOSCALER}), target, **more)


def _builder(method: str, path: str, target: PathTarget = PathTarget.NONE, **more: Any) -> Call:
    return Call(method, re.compile(path), frozenset({BUILDER}), target, **more)


# --- queries


def _only_ours(policy: ProxyPolicy, query: Mapping[str, Sequence[str]]) -> None:
    """A listing that shows what belongs to the platform alone."""
    own_label = f"{PLATFORM_LABEL}={policy.platform}"
    try:
        (text,) = query.get("filters", ())
        labels = json.loads(text)["label"]
    except (ValueError, KeyError, TypeError) as error:
        raise RefusedError(f"a listing must have the filter label={own_label}") from error
    if own_label not in (labels if isinstance(labels, list | dict) else ()):
        raise RefusedError(f"a listing must have the filter label={own_label}")


def _pull_or_own_import(_: ProxyPolicy, query: Mapping[str, Sequence[str]]) -> None:
    if query.get("fromSrc", ["-"]) != ["-"]:
        raise RefusedError("an image is imported from the request alone, not from an address")
    if "fromSrc" in query and query.get("repo", [""])[0] != "knoll/pause":
        raise RefusedError("only the sandbox's own image, knoll/pause, is imported")


def _volumes_only(_: ProxyPolicy, query: Mapping[str, Sequence[str]]) -> None:
    if query.get("type") != ["volume"]:
        raise RefusedError("of the disk's use only that of volumes is told: type=volume")


# --- bodies


def _refuse(where: str, value: Json, why: str) -> RefusedError:
    return RefusedError(f"{where}: {json.dumps(value, default=str)[:100]} is not allowed: {why}")


def _is_empty(value: Json) -> bool:
    """Whether a field says nothing: what the engine writes for one that was never set."""
    if isinstance(value, dict):
        return all(_is_empty(each) for each in value.values())
    if isinstance(value, list):
        return all(_is_empty(each) for each in value)
    return value in (None, False, 0, "")


def _fields(
    where: str, body: Json, allowed: Mapping[str, Callable[[ProxyPolicy, str, Json], Json]], policy: ProxyPolicy,
    dropped: frozenset[str] = frozenset(),
) -> dict[str, Json]:  # fmt: skip
    """The fields of an object that are allowed, checked. Others must say nothing, and are left out.

    Args: dropped: left out whatever they say: the engine's default holds.
    """
    if not isinstance(body, dict):
        raise _refuse(where, body, "an object is expected")
    kept = {}
    for name, value in body.items():
        if name in allowed:
            kept[name] = allowed[name](policy, f"{where}.{name}", value)
        elif name not in dropped and not _is_empty(value):
            raise _refuse(f"{where}.{name}", value, "no such setting is needed here")
    return kept


def _any(_: ProxyPolicy, where: str, value: Json) -> Json:
    return value


def _number(_: ProxyPolicy, where: str, value: Json) -> Json:
    if value is not None and (not isinstance(value, int) or isinstance(value, bool) or value < 0):
        raise _refuse(where, value, "a number that is not negative is expected")
    return value


def _flag(_: ProxyPolicy, where: str, value: Json) -> Json:
    if not isinstance(value, bool):
        raise _refuse(where, value, "true or false is expected")
    return value


def _one_of(*allowed: str) -> Callable[[ProxyPolicy, str, Json], Json]:
    def check(_: ProxyPolicy, where: str, value: Json) -> Json:
        if not isinstance(value, str) or value not in allowed:
            raise _refuse(where, value, f"only {', '.join(map(repr, allowed))}")
        return value

    return check


def _labels(policy: ProxyPolicy, where: str, value: Json) -> Json:
    if not isinstance(value, dict) or value.get(PLATFORM_LABEL) != policy.platform:
        raise _refuse(where, value, f"{PLATFORM_LABEL} must be {policy.platform!r}")
    return value


def _texts(where: str, value: Json) -> Sequence[str]:
    """A list of texts; empty for none. The engine takes one text for a list in some places, we do not."""
    if value is None:
        return ()
    if not isinstance(value, list) or not all(isinstance(each, str) for each in value):
        raise _refuse(where, value, "a list of texts is expected")
    return value


def _list(_: ProxyPolicy, where: str, value: Json) -> Json:
    _texts(where, value)
    return value


def _strings(*allowed: str) -> Callable[[ProxyPolicy, str, Json], Json]:
    def check(_: ProxyPolicy, where: str, value: Json) -> Json:
        for each in _texts(where, value):
            if each not in allowed:
                raise _refuse(where, each, f"only {', '.join(allowed)}")
        return value

    return check


def _added(policy: ProxyPolicy, where: str, value: Json) -> Json:
    for each in _texts(where, value):
        if each.upper().removeprefix("CAP_") not in policy.capabilities:
            raise _refuse(where, each, "no container gets this capability (KNOLL_ENGINE_CAPABILITIES)")
    return value


def _groups(_: ProxyPolicy, where: str, value: Json) -> Json:
    for each in _texts(where, value):
        if not re.fullmatch(r"\d{1,10}", each):
            raise _refuse(where, each, "only groups by number: a name would be the image's or the machine's")
    return value


def _network_mode(policy: ProxyPolicy, where: str, value: Json) -> Json:
    if value in ("none", policy.network) or _joined(value):
        return value
    raise _refuse(where, value, f"only none, {policy.network} or the network of a container of this platform")


def _ipc_mode(_: ProxyPolicy, where: str, value: Json) -> Json:
    if value in ("", "none", "private", "shareable") or _joined(value):
        return value
    raise _refuse(where, value, "only its own, or that of a container of this platform")


def _joined(value: Json) -> str:
    """Id of the container whose namespace is joined; empty for none."""
    if not isinstance(value, str) or not value.startswith("container:"):
        return ""
    return value.removeprefix("container:")


def _annotations(_: ProxyPolicy, where: str, value: Json) -> Json:
    if value is not None and (not isinstance(value, dict) or set(value) - {SHIM_ANNOTATION}):
        raise _refuse(where, value, f"only {SHIM_ANNOTATION}")
    return value


def _storage(_: ProxyPolicy, where: str, value: Json) -> Json:
    if value is not None and (not isinstance(value, dict) or set(value) - {"size"}):
        raise _refuse(where, value, "only size")
    return value


def _log(_: ProxyPolicy, where: str, value: Json) -> Json:
    kept = _fields(where, value, {"Type": _one_of("none", "local", "json-file"), "Config": _any}, _)
    if kept.get("Type") == "json-file" and "max-size" not in (kept.get("Config") or {}):
        raise _refuse(where, value, "a log must be bounded (max-size)")
    if not isinstance(kept.get("Config"), dict | None):
        raise _refuse(where, value, "its options are an object")
    options = {"max-size", "max-file", "compress", "mode", "max-buffer-size"}
    if set(kept.get("Config") or {}) - options:
        raise _refuse(where, value, f"only {', '.join(sorted(options))}")
    return kept


def _mounts(policy: ProxyPolicy, where: str, value: Json) -> Json:
    if not isinstance(value, list | None):
        raise _refuse(where, value, "a list is expected")
    return [_mount(policy, f"{where}[{number}]", each) for number, each in enumerate(value or ())]


def _mount(policy: ProxyPolicy, where: str, value: Json) -> Json:
    def source(_: ProxyPolicy, place: str, name: Json) -> Json:
        if not isinstance(name, str) or not name.startswith(f"{policy.platform}."):
            raise _refuse(place, name, f"only {PathTarget.VOLUME.value}")
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
_HOST_CONFIG: dict[str, Callable[[ProxyPolicy, str, Json], Json]] = {
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
"""What the engine tells of a container that it chose by itself; a container made again gets its choice again."""
_CONTAINER = {
    **dict.fromkeys(
        ("Image", "Hostname", "Domainname", "Env", "Healthcheck", "Entrypoint", "Cmd", "User", "WorkingDir", "Tty",
         "OpenStdin", "StdinOnce", "AttachStdin", "AttachStdout", "AttachStderr", "StopSignal", "StopTimeout", "Shell",
         "ArgsEscaped"), _any,
    ),
    "Labels": _labels,
    "HostConfig": lambda policy, where, value: _host_config(policy, where, value),
}  # fmt: skip


def _host_config(policy: ProxyPolicy, where: str, value: Json) -> Json:
    kept = _fields(where, value, _HOST_CONFIG, policy, _DROPPED)
    if "NetworkMode" not in kept:
        raise _refuse(f"{where}.NetworkMode", None, "it must be said")
    if not 0 < int(kept.get("PidsLimit") or 0) <= MOST_PIDS:
        raise _refuse(f"{where}.PidsLimit", kept.get("PidsLimit"), f"it must be 1 to {MOST_PIDS}")
    if not any(str(each).startswith("no-new-privileges") for each in kept.get("SecurityOpt") or ()):
        raise _refuse(f"{where}.SecurityOpt", kept.get("SecurityOpt"), "no-new-privileges must be there")
    if "ALL" not in (kept.get("CapDrop") or ()):
        raise _refuse(f"{where}.CapDrop", kept.get("CapDrop"), "ALL must be dropped; CapAdd gives some back")
    if "seccomp=unconfined" in (kept.get("SecurityOpt") or ()) and kept.get("CapAdd"):
        raise _refuse(f"{where}.SecurityOpt", kept["SecurityOpt"], "not with capabilities")
    return kept


def _create_container(policy: ProxyPolicy, body: Json) -> Json:
    kept = _fields("container", body, _CONTAINER, policy)
    for name in ("Image", "Labels", "HostConfig"):
        if name not in kept:
            raise _refuse(f"container.{name}", None, "it must be said")
    return kept


def _create_exec(policy: ProxyPolicy, body: Json) -> Json:
    allowed = dict.fromkeys(
        ("Cmd", "AttachStdin", "AttachStdout", "AttachStderr", "Tty", "Env", "WorkingDir", "ConsoleSize", "DetachKeys"),
        _any,
    )
    return _fields("exec", body, allowed, policy)


def _start_exec(policy: ProxyPolicy, body: Json) -> Json:
    return _fields("exec", body, {"Detach": _flag, "Tty": _flag, "ConsoleSize": _any}, policy)


def _create_volume(policy: ProxyPolicy, body: Json) -> Json:
    def name(_: ProxyPolicy, where: str, value: Json) -> Json:
        if not isinstance(value, str) or not value.startswith(f"{policy.platform}."):
            raise _refuse(where, value, f"names of volumes begin with {policy.platform}.")
        return value

    kept = _fields("volume", body, {"Name": name, "Labels": _labels, "Driver": _one_of("", "local")}, policy)
    if "Name" not in kept or "Labels" not in kept:
        raise _refuse("volume", body, "Name and Labels must be said")
    return kept


def _create_network(policy: ProxyPolicy, body: Json) -> Json:
    def options(_: ProxyPolicy, where: str, value: Json) -> Json:
        if not isinstance(value, dict) or any(not key.startswith("com.docker.network.bridge.") for key in value):
            raise _refuse(where, value, "only options of a bridge")
        return value

    allowed = {"Name": _one_of(policy.network), "Driver": _one_of("bridge"), "Labels": _labels, "Options": options}
    kept = _fields("network", body, {**allowed, "CheckDuplicate": _flag}, policy)
    if not {"Name", "Driver", "Labels"} <= kept.keys():
        raise _refuse("network", body, "Name, Driver and Labels must be said")
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
    """Find the call that a request line asks for.

    Args: target: path and query as they came.

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
    raise RefusedError(f"{method} {plain[:100]} is not among the calls that the {policy.role} needs")


def rewritten(policy: ProxyPolicy, call: Call, body: bytes) -> tuple[bytes, tuple[str, ...]]:
    """The body to send for a call that checks one, and the containers that must be the platform's.

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


def is_ours(policy: ProxyPolicy, target: PathTarget, description: Json) -> bool:
    """Whether what the engine says of a container, a volume or a network makes it the platform's."""
    holder = (description.get("Config") or {}) if target is PathTarget.CONTAINER else description
    return (holder.get("Labels") or {}).get(PLATFORM_LABEL) == policy.platform


def is_id(name: str) -> bool:
    """Whether a name is a whole id of the engine's: those never change whom they name."""
    return bool(_ID.fullmatch(name))
