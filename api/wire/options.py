"""Parses the query parameters of a request. Pure."""

import base64
import binascii
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Literal

import orjson

from api.wire import selectors
from api.wire.selectors import Selector
from knoll.values.errors import BadRequestError
from knoll.values.json import Json

QueryParameters = Mapping[str, str]

Validation = Literal["Strict", "Warn", "Ignore"]
Propagation = Literal["Background", "Foreground", "Orphan"]

MAX_TIMEOUT_SECONDS = 7 * 24 * 3600
"""Longest duration of a watch, in seconds."""
MIN_WATCH_SECONDS = 1800
"""Duration of a watch without timeoutSeconds; up to the same is added at random, so that not all end at once. Source:
kube-apiserver, `--min-request-timeout`."""
_MAX_MANAGER = 128


@dataclass(frozen=True, slots=True)
class WriteOptions:
    """The options of a create, update, patch or apply."""

    dry_run: bool
    validation: Validation
    manager: str
    """Field manager; by default the client's name, as in Kubernetes."""
    force: bool


@dataclass(frozen=True, slots=True)
class DeleteOptions:
    """The options of a deletion; empty preconditions do not count."""

    dry_run: bool
    propagation: Propagation
    uid: str = ""
    version: str = ""


@dataclass(frozen=True, slots=True)
class ListOptions:
    """The options of a list."""

    selector: Selector
    limit: int
    """0 means no limit."""
    after: str
    """`namespace/name` of the last object of the previous page; empty for the first page."""
    version: int
    """Version of the first page when continuing; else the oldest version that is acceptable, or 0."""
    exact: bool


@dataclass(frozen=True, slots=True)
class WatchOptions:
    """The options of a watch."""

    selector: Selector
    since: int
    """Only events after this version; 0 starts with the existing objects."""
    initial: bool
    """Whether to start with an ADDED event for each object."""
    bookmarks: bool
    announce: bool
    """Whether a bookmark marks the end of the initial events (`sendInitialEvents`)."""
    timeout: float
    """Seconds."""


def write_options(query: QueryParameters, user_agent: str = "", *, apply: bool = False) -> WriteOptions:
    """Raises: BadRequestError."""
    manager = query.get("fieldManager", "")
    if len(manager) > _MAX_MANAGER or not manager.isprintable():
        raise BadRequestError(f"fieldManager must be a printable string of at most {_MAX_MANAGER} characters")
    if apply and not manager:
        raise BadRequestError(
            "PatchOptions.meta.k8s.io is invalid: fieldManager: Required value: is required for apply patch"
        )
    force = _boolean(query, "force")
    if force and not apply:
        raise BadRequestError(
            "PatchOptions.meta.k8s.io is invalid: force: Forbidden: may not be specified for non-apply patch"
        )
    validation = query.get("fieldValidation") or "Warn"
    if validation not in ("Strict", "Warn", "Ignore"):
        raise BadRequestError(
            f"fieldValidation: Unsupported value: {validation[:40]!r}: supported values: Ignore, Strict, Warn"
        )
    return WriteOptions(
        dry_run=_dry_run(query.get("dryRun", "")),
        validation=validation,  # type: ignore[arg-type]  # one of the three, checked above
        manager=manager or user_agent.partition("/")[0][:_MAX_MANAGER] or "unknown",
        force=force,
    )


def delete_options(query: QueryParameters, body: Json | None) -> DeleteOptions:
    """Parse the query and the optional DeleteOptions body. Raises: BadRequestError."""
    body = body or {}
    propagation: Any = body.get("propagationPolicy") or query.get("propagationPolicy")
    orphan = body.get("orphanDependents")
    if not propagation:
        propagation = "Orphan" if orphan is True or query.get("orphanDependents") == "true" else "Background"
    if propagation not in ("Background", "Foreground", "Orphan"):
        raise BadRequestError(
            f"propagationPolicy: Unsupported value: {str(propagation)[:40]!r}: "
            'supported values: "Background", "Foreground", "Orphan"'
        )
    dry_run = body.get("dryRun")
    if dry_run is None:
        dry_run = []
    if not isinstance(dry_run, list):
        raise BadRequestError("dryRun of DeleteOptions must be a list")
    preconditions = body.get("preconditions")
    if preconditions is None:
        preconditions = {}
    if not isinstance(preconditions, dict):
        raise BadRequestError("preconditions of DeleteOptions must be an object")
    return DeleteOptions(
        dry_run=_dry_run(query.get("dryRun", "")) | any(list(map(_dry_run, map(str, dry_run)))),
        propagation=propagation,
        uid=_text(preconditions, "uid"),
        version=_text(preconditions, "resourceVersion"),
    )


def _text(source: Json, field: str) -> str:
    value = source.get(field)
    if value is None:
        return ""
    if not isinstance(value, str):
        raise BadRequestError(f"preconditions.{field} of DeleteOptions must be a string")
    return value


def _dry_run(value: str) -> bool:
    if value not in ("", "All"):
        raise BadRequestError(f'dryRun: Unsupported value: {value[:40]!r}: supported values: "All"')
    return value == "All"


def list_options(query: QueryParameters, resource: str) -> ListOptions:
    """Raises: BadRequestError."""
    selector = _selector(query, resource)
    limit = _integer(query, "limit")
    _integer(query, "timeoutSeconds")  # validated and otherwise ignored: a list does not wait
    token = query.get("continue", "")
    if token:
        version, after = _read_token(token)
        return ListOptions(selector, limit, after, version, exact=False)
    match = query.get("resourceVersionMatch", "")
    version = _version(query)
    if match not in ("", "Exact", "NotOlderThan"):
        raise BadRequestError(
            f"resourceVersionMatch: Unsupported value: {match[:40]!r}: supported values: Exact, NotOlderThan"
        )
    if match and not query.get("resourceVersion"):
        raise BadRequestError(
            "resourceVersionMatch: Forbidden: resourceVersionMatch is forbidden unless resourceVersion is provided"
        )
    if match == "Exact" and version == 0:
        raise BadRequestError('resourceVersionMatch: Forbidden: "Exact" is forbidden for resourceVersion "0"')
    return ListOptions(selector, limit, "", version, exact=match == "Exact")


def watch_options(
    query: QueryParameters, resource: str, name: str = "", *, chance: Callable[[], float] = lambda: 0.0
) -> WatchOptions:
    """
    Args:
        name: of the object, if the path has one.
        chance: returns a random number from 0 to 1, for the duration of a watch without timeoutSeconds.

    Raises: BadRequestError.
    """
    fields = query.get("fieldSelector", "")
    if name:
        fields = f"{fields},metadata.name={name}" if fields else f"metadata.name={name}"
    selector = selectors.parse(query.get("labelSelector", ""), fields, resource)
    since = _version(query)
    initial = query.get("sendInitialEvents", "")
    announce = initial == "true"
    timeout = _integer(query, "timeoutSeconds")
    if timeout > MAX_TIMEOUT_SECONDS:
        raise BadRequestError(f"timeoutSeconds must be at most {MAX_TIMEOUT_SECONDS}, not {timeout}")
    return WatchOptions(
        selector=selector,
        since=0 if announce else since,
        initial=announce or (since == 0 and initial != "false"),
        bookmarks=_boolean(query, "allowWatchBookmarks"),
        announce=announce,
        timeout=float(timeout) or MIN_WATCH_SECONDS * (1 + chance()),
    )


def _selector(query: QueryParameters, resource: str) -> Selector:
    return selectors.parse(query.get("labelSelector", ""), query.get("fieldSelector", ""), resource)


def is_watch(query: QueryParameters) -> bool:
    return _boolean(query, "watch")


def _boolean(query: QueryParameters, name: str) -> bool:
    value = query.get(name, "")
    if value.lower() in ("true", "1"):
        return True
    if value.lower() in ("", "false", "0"):
        return False
    raise BadRequestError(f"{name} must be true or false, not {value[:40]!r}")


def _integer(query: QueryParameters, name: str) -> int:
    value = query.get(name, "")
    if not value:
        return 0
    if not value.isascii() or not value.isdigit() or len(value) > 18:
        raise BadRequestError(f"{name} must be a non-negative integer, not {value[:40]!r}")
    return int(value)


def _version(query: QueryParameters) -> int:
    value = query.get("resourceVersion", "")
    if value and (not value.isascii() or not value.isdigit() or len(value) > 18):
        raise BadRequestError(f"resourceVersion: Invalid value: {value[:40]!r}: not a version of this API")
    return int(value or 0)


def make_token(version: int, after: str) -> str:
    """Return the `continue` token after `namespace/name` of a list that started at `version`."""
    return base64.urlsafe_b64encode(orjson.dumps({"v": 1, "rv": version, "after": after})).decode().rstrip("=")


def _read_token(token: str) -> tuple[int, str]:
    try:
        held = orjson.loads(base64.urlsafe_b64decode(token + "=" * (-len(token) % 4)))
        version, after = held["rv"], held["after"]
    except (ValueError, binascii.Error, KeyError, TypeError):
        raise BadRequestError("continue key is not valid: it is not from this API") from None
    if not isinstance(version, int) or not isinstance(after, str):
        raise BadRequestError("continue key is not valid: it is not from this API")
    return version, after
