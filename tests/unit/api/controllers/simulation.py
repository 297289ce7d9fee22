"""A simulation without Redis: actions are applied to the cache, so that whole chains run in a millisecond.

The other processes (builder, autoscaler, activators) are scripted by the tests, which fill the tables.
"""

from collections import deque
from collections.abc import Collection, Sequence
from dataclasses import replace
from typing import Any

from api.controllers.engine import cluster_state, dispatch, status_writes, watch_mappings
from api.controllers.engine.cache import CacheChange
from api.controllers.reconciler import objects
from api.controllers.reconciler.actions import (  # fmt: skip
    Action,
    Create,
    Delete,
    Emit,
    Enqueue,
    Forget,
    ObjectKey,
    PutRoute,
    ReconcileResult,
    RemoveRoute,
    ResolveImages,
    Update,
    UpdateStatus,
)
from api.controllers.service import service
from knoll.messages import builds
from knoll.messages.builds import Resolution, Resolved
from knoll.messages.scale import ScaleStatus, StartFailure
from knoll.values import kinds
from knoll.values import labels as well_known
from knoll.values.json import Json
from knoll.values.timestamps import timestamp

NOW = 1_780_000_000.0
SHA = "sha256:" + "a" * 64


class Simulation:
    """Objects with versions, tables, and reconciliation until nothing is left to do."""

    def __init__(self, activators: int = 1) -> None:
        self.state = cluster_state.ClusterState(activators=activators)
        self.now = NOW
        self.events: list[Emit] = []
        self.enqueued: list[Enqueue | ResolveImages] = []
        self.writes = 0
        self.acknowledged_versions: dict[str, int] = {}
        """What activators act on, by path: the truth that a status must not run ahead of."""
        self._version = 0
        self._table_version = 0
        self._dirty: dict[ObjectKey, None] = {}
        self._held: set[ObjectKey] = set()
        self._late: set[ObjectKey] = set()
        """Objects whose status waits to be written."""
        self._due: set[ObjectKey] = set()
        """Those of them that have waited."""
        self.timed: set[ObjectKey] = set()
        """Objects that will be reconciled again at some time, whatever changes."""
        self.reconciles = 0

    # What a user does

    def apply(self, kind: kinds.Kind, name: str, spec: Json, namespace: str = "default", **meta: Any) -> Json:
        """Create an object, or replace its spec and the given metadata; the generation follows the spec."""
        existing = self.state.cache.get(kind.id, namespace, name)
        if existing is None:
            body = {
                "apiVersion": kind.api_version, "kind": kind.kind,
                "metadata": {"name": name, **({"namespace": namespace} if namespace else {}), **meta}, "spec": spec,
            }  # fmt: skip
            return self.store(kind.id, objects.with_identity(body, self.now))
        body = {**existing, "metadata": {**existing["metadata"], **meta}, "spec": spec}
        return self.store(kind.id, objects.with_generation(existing, body))

    def service(self, name: str = "hello", image: str = "img:v1", traffic: Any = None, **options: Any) -> Json:
        """Apply a Service. Options: revision (its own name), labels, annotations, template_annotations."""
        template: Json = {"spec": {"containers": [{"name": "user-container", "image": image}], "timeoutSeconds": 300}}
        if options.get("revision"):
            template["metadata"] = {"name": options["revision"]}
        if options.get("template_annotations"):
            template.setdefault("metadata", {})["annotations"] = options["template_annotations"]
        annotations = {well_known.CREATOR: "admin", well_known.LAST_MODIFIER: "admin", **options.get("annotations", {})}
        spec = {"template": template, "traffic": traffic or [{"latestRevision": True, "percent": 100}]}
        return self.apply(
            kinds.SERVICE, name, spec, annotations=annotations, labels=options.get("labels", {}),
        )  # fmt: skip

    def delete(self, kind: kinds.Kind, name: str, namespace: str = "default") -> None:
        """Remove an object, or mark it while it has finalizers; what it owns goes as well."""
        body = self.state.cache.get(kind.id, namespace, name)
        assert body is not None
        if body["metadata"].get("finalizers"):
            meta = {**body["metadata"], "deletionTimestamp": timestamp(self.now)}
            self.store(kind.id, {**body, "metadata": meta})
        else:
            self._gone(kind.id, namespace, name)

    # What the other processes do

    def resolved(self, revision: str, error: str = "", namespace: str = "default") -> None:
        body = self.get(kinds.REVISION, revision, namespace)
        images = tuple(
            Resolved(container["name"], container["image"], f"repo@{SHA}") for container in body["spec"]["containers"]
        )
        answer = Resolution(body["metadata"]["uid"], () if error else images, error)
        self.state.resolutions[f"{namespace}/{revision}"] = answer
        self._dirty[kinds.REVISION.id, namespace, revision] = None

    def scaled(self, revision: str, desired: int = 1, actual: int = 1, **more: Any) -> None:
        namespace = more.get("namespace", "default")
        body = self.get(kinds.REVISION, revision, namespace)
        status = ScaleStatus(
            uid=body["metadata"]["uid"], desired=desired, actual=actual,
            initial_reached=more.get("reached", True), active=more.get("active", "True"),
            active_reason=more.get("reason", ""), failure=more.get("failure"),
            by_load=more.get("by_load", 0), rollback=more.get("rollback", ""),
        )  # fmt: skip
        self.state.scale[f"{namespace}/{revision}"] = status
        self._dirty[kinds.REVISION.id, namespace, revision] = None

    def fails(self, revision: str, condition: Any, reason: str, message: str, *, final: bool = True) -> None:
        # Later than what it follows, so that it is the most recent cause.
        self.now += 1
        failure = StartFailure(condition, reason, message, final)
        self.scaled(revision, actual=0, reached=False, active="Unknown", reason="Queued", failure=failure)

    def acknowledge(self, route: str = "hello", namespace: str = "default") -> None:
        """Every activator acts on the entry of a Route, or of a DomainMapping (`domainmapping:HOST`)."""
        path = f"{namespace}/{route}"
        self.state.acknowledged[path] = self.acknowledged_versions[path] = self.state.routing[path][0]
        self._dirty[dispatch.routing_key(path)] = None

    def ready(self, revision: str, route: str = "hello") -> None:
        """Take a Revision all the way to being served."""
        self.settle()
        self.resolved(revision)
        self.settle()
        self.scaled(revision)
        self.settle()
        if f"default/{route}" in self.state.routing:
            self.acknowledge(route)
            self.settle()

    # What the controllers do

    def settle(self) -> None:
        """Reconcile until nothing is left to do."""
        for _ in range(2000):
            if not self._dirty and self._late:
                self._due, self._late = self._late, set()
                self._dirty.update(dict.fromkeys(self._due))
            if not self._dirty and self._held:
                self.now += service.UNKNOWN_SECONDS
                self._dirty.update(dict.fromkeys(self._held))
                self._held.clear()
            if not self._dirty:
                return
            key = next(iter(self._dirty))
            del self._dirty[key]
            self.reconcile(key)
        raise AssertionError(f"the controllers never settle; still waiting: {list(self._dirty)}")

    def reconcile(self, key: ObjectKey, most: int = 1000) -> None:
        """Reconcile an object, and with it the objects that it creates.

        Args: most: actions after which the process dies; the next one reconciles every object.
        """
        self.reconciles += 1
        steps = deque([(key, dispatch.decide(key, self.state, self.now))])
        while steps:
            key, outcome = steps.popleft()
            waits = self._waits(key, outcome.actions)
            for action in outcome.actions:
                if most <= 0:
                    self._late.clear()
                    self._dirty.update(dict.fromkeys(self.keys()))
                    return
                most -= 1
                if isinstance(action, Create) and action.resource in status_writes.CREATED_WITH_STATUS:
                    steps.append(self._create(key, action))
                elif not (waits and isinstance(action, UpdateStatus)):
                    self.carry_out(action, (key,))
            (self.timed.discard if outcome.requeue_after is None else self.timed.add)(key)
            if outcome.again:
                self._dirty[key] = None
            elif outcome.requeue_after and key[0] == kinds.SERVICE.id:
                self._held.add(key)

    def _create(self, key: ObjectKey, action: Create) -> tuple[ObjectKey, ReconcileResult]:
        child = objects.key_of(action.resource, action.body)
        self._dirty.pop(child, None)
        self.reconciles += 1
        new = objects.with_identity(action.body, self.now)
        first = dispatch.decide_on(child[0], new, self.state, self.now)
        body, others = status_writes.with_first_status(new, first.actions)
        self.carry_out(Create(action.resource, body), (key, child))
        return child, replace(first, actions=others)

    def _waits(self, key: ObjectKey, actions: Sequence[Action]) -> bool:
        if not status_writes.can_wait(actions) or key in self._due:
            self._due.discard(key)
            self._late.discard(key)
            return False
        self._late.add(key)
        return True

    def everything_again(self) -> list[Action]:
        """What would be done if every object were reconciled now; nothing, once all is settled."""
        return [action for key in self.keys() for action in dispatch.decide(key, self.state, self.now).actions]

    def keys(self) -> list[ObjectKey]:
        return [
            (resource, *name)
            for resource in watch_mappings.RECONCILED
            for name in sorted(self.state.cache.names(resource))
        ]

    def carry_out(self, action: Action, by: Collection[ObjectKey] = ()) -> None:
        """Args: by: the objects whose reconciliation returned the action, or is part of it."""
        match action:
            case Create(resource, body):
                key = objects.key_of(resource, body)
                assert self.state.cache.get(*key) is None, f"{key} is there already"
                self.store(resource, body if body["metadata"].get("uid") else objects.with_identity(body, self.now), by)
            case Update(resource, before, body):
                self._compare_and_set(resource, before, objects.with_generation(before, body), by)
            case UpdateStatus(resource, before, body):
                assert before["spec"] == body["spec"]
                assert before["metadata"] == body["metadata"]
                self._compare_and_set(resource, before, body, by)
            case Delete(resource, namespace, name, _):
                self._gone(resource, namespace, name)
            case PutRoute(path, entry):
                hosts_before = self._hosts_of(path)
                self._table_version += 1
                self.state.routing[path] = (self._table_version, entry)
                self._routed(path, hosts_before, by)
            case RemoveRoute(path):
                hosts_before = self._hosts_of(path)
                del self.state.routing[path]
                self._routed(path, hosts_before, by)
            case Forget(table, path):
                answers: dict[str, Any] = {
                    builds.RESOLUTIONS: self.state.resolutions, builds.BUILDS: self.state.builds
                }  # fmt: skip
                del answers[table][path]
            case Enqueue() | ResolveImages():
                self.enqueued.append(action)
                self.state.asked[action.uid] = self.now
            case Emit():
                self.events.append(action)

    def store(self, resource: str, body: Json, by: Collection[ObjectKey] = ()) -> Json:
        self._version += 1
        self.writes += 1
        stored = {**body, "metadata": {**body["metadata"], "resourceVersion": str(self._version)}}
        if resource == kinds.SERVICE.id:
            cluster_state.note_shown(stored, self.state, self.now)
        self._seen(self.state.cache.put(resource, stored), by)
        return stored

    # What tests look at

    def is_routed(self, path: str) -> bool:
        return path in self.state.routing

    def get(self, kind: kinds.Kind, name: str = "hello", namespace: str = "default") -> Json:
        body = self.state.cache.get(kind.id, namespace, name)
        assert body is not None, f"there is no {kind.kind} {name}"
        return body

    def names(self, kind: kinds.Kind) -> list[str]:
        return sorted(name for _, name in self.state.cache.names(kind.id))

    def conditions(self, kind: kinds.Kind, name: str = "hello") -> dict[str, tuple[str, ...]]:
        """Each condition's status, followed by its reason if it has one."""
        current = objects.status(self.get(kind, name)).get("conditions", [])
        return {c["type"]: (c["status"], c["reason"]) if "reason" in c else (c["status"],) for c in current}

    def message(self, kind: kinds.Kind, name: str = "hello", type_: str = "Ready") -> str:
        condition = objects.condition(self.get(kind, name), type_)
        return str((condition or {}).get("message", ""))

    def traffic(self, kind: kinds.Kind = kinds.SERVICE, name: str = "hello") -> list[Json]:
        result: list[Json] = objects.status(self.get(kind, name)).get("traffic", [])
        return result

    def shares(self, host: str, route: str = "hello") -> dict[str, int]:
        """Revision to percent, of one host in the routing table."""
        entry = self.state.routing[f"default/{route}"][1]
        shares = {**entry.local_hosts, **entry.hosts}[host]
        return {share.revision.removeprefix("default/"): share.percent for share in shares}

    def _hosts_of(self, path: str) -> frozenset[str]:
        entry = self.state.routing.get(path)
        return frozenset(entry[1].hosts) if entry is not None else frozenset()

    def _routed(self, path: str, before: frozenset[str], by: Collection[ObjectKey]) -> None:
        resource, namespace, name = key = dispatch.routing_key(path)
        if key not in by:
            self._dirty[key] = None
        if resource == kinds.ROUTE.id:
            self._dirty.update(dict.fromkeys(watch_mappings.mappings_to(namespace, name, self.state.cache)))
            contenders = watch_mappings.contenders(path, before, self.state.routing, self.state.cache)
            self._dirty.update(dict.fromkeys(contenders))

    def _compare_and_set(self, resource: str, before: Json, body: Json, by: Collection[ObjectKey]) -> None:
        stored = self.state.cache.get(*objects.key_of(resource, before))
        assert stored is not None
        assert stored["metadata"]["resourceVersion"] == before["metadata"]["resourceVersion"], "a stale write"
        if objects.deleting(body) and not body["metadata"].get("finalizers"):
            self._gone(*objects.key_of(resource, body))
        else:
            self.store(resource, body, by)

    def _gone(self, resource: str, namespace: str, name: str) -> None:
        self._version += 1
        body = self.state.cache.get(resource, namespace, name)
        assert body is not None
        owned = [
            (other, child)
            for other in (kinds.CONFIGURATION.id, kinds.ROUTE.id, kinds.REVISION.id, kinds.CORE_SERVICE.id)
            for child in self.state.cache.owned(body, other)
        ]
        self._seen(self.state.cache.remove(resource, namespace, name, self._version))
        for other, child in owned:
            self.delete(kinds.BY_ID[other], child["metadata"]["name"], namespace)

    def _seen(self, seen: CacheChange | None, by: Collection[ObjectKey] = ()) -> None:
        if seen is not None:
            for key in watch_mappings.keys(seen, self.state.cache, by):
                self._dirty[key] = None
