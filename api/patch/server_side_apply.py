"""Server-side apply: ownership of fields, conflicts, and fields that a manager no longer applies. Pure.

Ownership is recorded from an object's first apply on; until then there are no managedFields. At the first apply, the
existing fields belong to `before-first-apply`. If kubectl applied the object on the client side before, its fields
belong to kubectl and the others have no owner, so that switching to server-side apply causes no conflict. Lists are
owned as a whole (Knative's schemas declare them atomic).

Source: Kubernetes' server-side apply, https://kubernetes.io/docs/reference/using-api/server-side-apply/.
"""

from dataclasses import dataclass
from typing import Any

import orjson

from api.wire.status import ApplyConflictError
from knoll.values.errors import BadRequestError
from knoll.values.json import Json
from knoll.values.labels import LAST_APPLIED

Path = tuple[str, ...]

BEFORE = "before-first-apply"
_UNOWNED = frozenset(
    {
        "name", "namespace", "uid", "resourceVersion", "creationTimestamp", "deletionTimestamp", "generation",
        "generateName", "managedFields", "selfLink", "deletionGracePeriodSeconds",
    }
)  # fmt: skip
_TOP_UNOWNED = frozenset({"apiVersion", "kind"})


@dataclass(frozen=True, slots=True)
class Manager:
    """A field manager, as an entry of `managedFields` names it."""

    name: str
    operation: str
    """`Apply` or `Update`."""
    subresource: str = ""


@dataclass(slots=True)
class ManagedFields:
    """A manager's fields: paths to leaves, which are scalars and lists; empty objects have no owner."""

    paths: set[Path]
    api_version: str
    time: str


Entries = dict[Manager, ManagedFields]


def paths(body: Json, *, subresource: str = "") -> set[Path]:
    """Return every ownable leaf of an object; only those of the subresource if one was written."""
    leaves: set[Path] = set()
    for key, value in body.items():
        if key in _TOP_UNOWNED or (subresource and key != subresource):
            continue
        if key == "metadata" and isinstance(value, dict):
            for name, part in value.items():
                if name not in _UNOWNED:
                    _leaves(part, ("metadata", name), leaves)
            continue
        _leaves(value, (key,), leaves)
    return leaves


def _leaves(value: Any, at: Path, leaves: set[Path]) -> None:
    if isinstance(value, dict):
        for key, child in value.items():
            _leaves(child, (*at, key), leaves)
    else:
        leaves.add(at)


_MISSING = object()


def _value(body: Any, path: Path) -> Any:
    for part in path:
        if not isinstance(body, dict) or part not in body:
            return _MISSING
        body = body[part]
    return body


def _encode(leaves: set[Path]) -> Json:
    tree: Json = {}
    for path in sorted(leaves):
        node = tree
        for part in path:
            node = node.setdefault(f"f:{part}", {})
    return tree


def _decode(tree: Any) -> set[Path]:
    leaves: set[Path] = set()

    def walk(node: Any, at: Path) -> None:
        children = (
            [(key, child) for key, child in node.items() if key.startswith("f:")] if isinstance(node, dict) else []
        )
        for key, child in children:
            walk(child, (*at, key[2:]))
        if at and not children:
            leaves.add(at)

    walk(tree, ())
    return leaves


def read(body: Json) -> Entries:
    """Parse the `managedFields` of an object; malformed entries are ignored."""
    entries: Entries = {}
    for entry in body["metadata"].get("managedFields") or ():
        if not isinstance(entry, dict) or not isinstance(entry.get("manager"), str):
            continue
        manager = Manager(entry["manager"], str(entry.get("operation", "Update")), str(entry.get("subresource", "")))
        entries[manager] = ManagedFields(
            _decode(entry.get("fieldsV1")), str(entry.get("apiVersion", "")), str(entry.get("time", ""))
        )
    return entries


def write(body: Json, entries: Entries) -> None:
    """Set `managedFields`, without entries that have no fields. Mutates the metadata of `body`."""
    body["metadata"]["managedFields"] = [
        {
            "manager": manager.name,
            "operation": manager.operation,
            "apiVersion": entry.api_version,
            "time": entry.time,
            "fieldsType": "FieldsV1",
            "fieldsV1": _encode(entry.paths),
            **({"subresource": manager.subresource} if manager.subresource else {}),
        }
        for manager, entry in sorted(entries.items(), key=lambda pair: (pair[0].operation, pair[1].time, pair[0].name))
        if entry.paths
    ]
    if not body["metadata"]["managedFields"]:
        del body["metadata"]["managedFields"]


def differs(body: Json, old: Json) -> bool:
    """Whether ownership changed, not counting times."""
    if body["metadata"].get("managedFields") == old["metadata"].get("managedFields"):
        return False
    return {m: e.paths for m, e in read(body).items()} != {m: e.paths for m, e in read(old).items()}


def check_intent(intent: Json) -> None:
    """Raises: BadRequestError: the applied object has managedFields."""
    if intent["metadata"].get("managedFields") is not None:
        raise BadRequestError("metadata.managedFields must be nil")


@dataclass(slots=True)
class Applied:
    """An applied object merged into the live one, before admission; `record` is called after it."""

    body: Json
    old: Json
    intent: Json
    entries: Entries
    me: Manager
    api_version: str
    force: bool

    def record(self, body: Json, stamp: str) -> None:
        """Write ownership into the admitted body.

        Raises: ApplyConflictError: a field that others own would change, and `force` is false.
        """
        mine = paths(self.intent, subresource=self.me.subresource)
        changed = {path for path in mine if _value(body, path) != _value(self.old, path)}
        conflicts: list[tuple[str, str]] = []
        for manager, entry in self.entries.items():
            if manager == self.me:
                continue
            taken = (
                {owned for owned in entry.paths if any(_related(owned, path) for path in changed)} if changed else set()
            )
            if taken and not self.force:
                label = f"{manager.name}\n{entry.api_version}" if manager.operation == "Update" else manager.name
                conflicts.extend((label, "." + ".".join(path)) for path in sorted(taken))
            entry.paths -= taken
        if conflicts:
            raise ApplyConflictError(conflicts)
        own = self.entries.get(self.me)
        if own is None or own.paths != mine or own.api_version != self.api_version:
            self.entries[self.me] = ManagedFields(mine, self.api_version, stamp)
        _forget_gone(self.entries, body)
        write(body, self.entries)


def apply(old: Json, intent: Json, manager: str, force: bool, api_version: str, subresource: str) -> Applied:
    """Merge an applied object into the live one. Mutates neither.

    Sets the fields of the applied object, and removes those that this manager applied before and no longer applies,
    unless another manager owns them as well.
    """
    me = Manager(manager, "Apply", subresource)
    entries = read(old)
    if not entries:
        entries = _first_entries(old, me, api_version)
    intended = paths(intent, subresource=subresource)
    before = entries[me].paths if me in entries else set()
    others = set().union(*(entry.paths for owner, entry in entries.items() if owner != me))
    body = old
    for path in before - intended:
        still = any(now[: len(path)] == path for now in intended)
        if not still and not any(_related(path, other) for other in others):
            body = _without(body, path)
    merged = _merge(body, {key: value for key, value in intent.items() if not subresource or key == subresource})
    version = intent["metadata"].get("resourceVersion")
    merged["metadata"] = {**merged["metadata"], "resourceVersion": version or old["metadata"]["resourceVersion"]}
    return Applied(merged, old, intent, entries, me, api_version, force)


def _first_entries(old: Json, me: Manager, api_version: str) -> Entries:
    existing = paths(old)
    created = str(old["metadata"].get("creationTimestamp", ""))
    text = (old["metadata"].get("annotations") or {}).get(LAST_APPLIED)
    if me.name != "kubectl" or not text:
        return {Manager(BEFORE, "Update"): ManagedFields(existing, str(old.get("apiVersion", "")), created)}
    try:
        applied = orjson.loads(text)
    except orjson.JSONDecodeError:
        applied = {}
    mine = paths(applied) & existing if isinstance(applied, dict) else set()
    mine |= {path for path in existing if LAST_APPLIED in path}
    return {me: ManagedFields(mine, api_version, created)}


def first(body: Json, intent: Json, manager: str, api_version: str, stamp: str) -> None:
    """Record ownership of an object that an apply created. Mutates `body`."""
    write(body, {Manager(manager, "Apply"): ManagedFields(paths(intent), api_version, stamp)})


def update(body: Json, old: Json, manager: str, api_version: str, subresource: str, stamp: str) -> None:
    """Record ownership after a write other than apply, if the object has managedFields. Mutates `body`.

    A client may send other entries; an empty list removes all ownership.
    """
    given = body["metadata"].get("managedFields")
    kept = old["metadata"].get("managedFields")
    if not kept:
        body["metadata"].pop("managedFields", None)
        return
    if given is not None and (not isinstance(given, list) or not any(given)):
        del body["metadata"]["managedFields"]
        return
    entries = read(body if given else old)
    was, now = paths(old), paths(body)
    changed = {path for path in now if path not in was or _value(body, path) != _value(old, path)}
    me = Manager(manager, "Update", subresource)
    if changed:
        for owner, entry in entries.items():
            if owner != me:
                entry.paths -= changed
        mine = entries[me].paths if me in entries else set()
        entries[me] = ManagedFields(mine | changed, api_version, stamp)
    _forget_gone(entries, body)
    write(body, entries)


def _forget_gone(entries: Entries, body: Json) -> None:
    for entry in entries.values():
        entry.paths = {path for path in entry.paths if _value(body, path) is not _MISSING}


def _related(left: Path, right: Path) -> bool:
    """Whether one path is, or contains, the other."""
    shorter = min(len(left), len(right))
    return left[:shorter] == right[:shorter]


def _without(body: Json, path: Path) -> Json:
    """A copy without the leaf at `path` and without objects that become empty."""
    head, rest = path[0], path[1:]
    if head not in body:
        return body
    if rest and isinstance(body[head], dict):
        child = _without(body[head], rest)
        if child or not body[head]:
            return {**body, head: child}
    return {key: value for key, value in body.items() if key != head}


def _merge(live: Any, intent: Any) -> Any:
    if not isinstance(live, dict) or not isinstance(intent, dict):
        return intent
    result = dict(live)
    for key, value in intent.items():
        if value is None:
            continue
        result[key] = _merge(live.get(key), value)
    return result
