"""The calls of the container engine that the autoscaler and the builder may make. Pure.

Everything that is not listed here is refused; `bodies` checks the bodies of those that create something.

Why not an existing proxy: the maintained ones (docker-socket-proxy, wollomatic/socket-proxy) check method and path, and
some of them bind mounts; a client that may create any kind of container has root access to the machine.

Source: Docker Engine API, v1.41 to v1.47.
"""

import hashlib
import json
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import parse_qs, unquote

from knoll.engine_proxy.bodies import (
    create_container,
    create_exec,
    create_network,
    create_volume,
    joined_container,
    start_exec,
)
from knoll.engine_proxy.policy import AUTOSCALER, BUILDER, PLATFORM_LABEL, PathTarget, ProxyPolicy, RefusedError
from knoll.engine_proxy.reservations import ARCHIVES, ROLE, ROLE_LABEL, create_service
from knoll.values.json import JsonValue

_ID = re.compile(r"[0-9a-f]{64}")
_REFERENCE = r"[^?#\s]+?"


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
    contents: frozenset[str] = frozenset()
    """SHA-256 of the only bodies that are forwarded; empty for no such restriction."""
    swarm: bool = False
    """Whether the call is allowed only where the machines of the platform are in a Docker Swarm."""


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


def _swarm(method: str, path: str, target: PathTarget = PathTarget.NONE, **more: Any) -> Call:
    return _autoscaler(method, path, target, swarm=True, **more)


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
    _autoscaler("POST", r"/containers/create", body=create_container, makes=PathTarget.CONTAINER),
    *(_autoscaler("GET", rf"{_C}/{action}", PathTarget.CONTAINER) for action in ("json", "logs", "stats", "archive")),
    _autoscaler("HEAD", rf"{_C}/archive", PathTarget.CONTAINER),
    _autoscaler("PUT", rf"{_C}/archive", PathTarget.CONTAINER, has_body=True),
    *(
        _autoscaler("POST", rf"{_C}/{action}", PathTarget.CONTAINER)
        for action in ("start", "stop", "kill", "wait", "rename", "pause", "unpause")
    ),
    _autoscaler("DELETE", _C, PathTarget.CONTAINER),
    _autoscaler("POST", rf"{_C}/exec", PathTarget.CONTAINER, body=create_exec, makes=PathTarget.EXEC),
    _autoscaler("POST", r"/exec/(?P<name>[^/]+)/start", PathTarget.EXEC, body=start_exec),
    _autoscaler("GET", r"/exec/(?P<name>[^/]+)/json", PathTarget.EXEC),
    _autoscaler("GET", r"/volumes", query=_only_ours),
    _autoscaler("POST", r"/volumes/create", body=create_volume),
    _autoscaler("GET", r"/volumes/(?P<name>[^/]+)", PathTarget.VOLUME),
    _autoscaler("DELETE", r"/volumes/(?P<name>[^/]+)", PathTarget.VOLUME),
    _autoscaler("GET", r"/networks", query=_only_ours),
    _autoscaler("POST", r"/networks/create", body=create_network),
    _autoscaler("GET", r"/networks/(?P<name>[^/]+)", PathTarget.NETWORK),
    _autoscaler("DELETE", r"/networks/(?P<name>[^/]+)", PathTarget.NETWORK),
    # Nodes can only be read: the call that pauses a node can also make it a manager.
    _swarm("GET", r"/nodes"),
    _swarm("GET", r"/services", query=_only_ours),
    _swarm("GET", r"/tasks", query=_only_ours),
    _swarm("POST", r"/services/create", body=create_service, makes=PathTarget.SERVICE),
    _swarm("DELETE", r"/services/(?P<name>[0-9a-z]{25})", PathTarget.SERVICE),
    _swarm("POST", r"/images/load", contents=ARCHIVES),
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
        if call.swarm and not policy.swarm:
            continue
        if call.method == method and policy.role in call.roles and (match := call.path.fullmatch(plain)):
            if call.query:
                call.query(policy, parse_qs(text, keep_blank_values=True))
            return AllowedCall(call, match.groupdict().get("name") or "")
    raise RefusedError(f"{method} {plain[:100]} is not a call that the {policy.role} may make")


def rewritten(policy: ProxyPolicy, call: Call, body: bytes) -> tuple[bytes, tuple[str, ...]]:
    """Return the body to forward for a call with a checked body, and the containers that must belong to the platform.

    Raises: RefusedError.
    """
    if call.contents:
        if hashlib.sha256(body).hexdigest() not in call.contents:
            raise RefusedError("only the image of reservations may be loaded")
        return body, ()
    assert call.body is not None
    try:
        parsed = json.loads(body or b"{}")
    except ValueError as error:
        raise RefusedError(f"the body is not JSON: {error}") from error
    kept = call.body(policy, parsed)
    host = kept.get("HostConfig") or {} if call.makes is PathTarget.CONTAINER else {}
    joined = tuple(filter(None, (joined_container(host.get("NetworkMode")), joined_container(host.get("IpcMode")))))
    return json.dumps(kept, separators=(",", ":")).encode(), joined


def is_ours(policy: ProxyPolicy, target: PathTarget, description: JsonValue) -> bool:
    """Whether the engine's description of a container, volume, network or service has the platform's label.

    Containers of reservations are excluded: a container that joined their network would be on the host's.
    """
    holders = {PathTarget.CONTAINER: "Config", PathTarget.SERVICE: "Spec"}
    holder = (description.get(holders[target]) or {}) if target in holders else description
    labels = holder.get("Labels") or {}
    if target is PathTarget.CONTAINER and labels.get(ROLE_LABEL) == ROLE:
        return False
    return bool(labels.get(PLATFORM_LABEL) == policy.platform)


def is_id(name: str) -> bool:
    """Whether a name is a full id of the engine, which always refers to the same object."""
    return bool(_ID.fullmatch(name))
