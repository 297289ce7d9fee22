"""Which writes of a status are saved, and which are never delayed."""

from typing import Any

import pytest

from api.controllers.engine import status_writes
from api.controllers.reconciler import objects
from api.controllers.reconciler.actions import Create, Emit, PutRoute, Update, UpdateStatus
from knoll.messages.routing import RouteEntry
from knoll.values import kinds
from knoll.values.json import Json
from tests.unit.api.controllers.simulation import Simulation

ENTRY = PutRoute("default/hello", RouteEntry(hosts={}, revisions={}))


def body(ready: str | None = "Unknown", reason: str = "Waits", ingress: str = "Unknown", **status: Any) -> Json:
    conditions = [{"type": "Ready", "status": ready, "reason": reason}, {"type": "IngressReady", "status": ingress}]
    return {
        "metadata": {"name": "hello", "namespace": "default", "generation": 1},
        "status": {"observedGeneration": 1, "conditions": conditions if ready else [], **status},
    }


def write(kind: kinds.Kind, before: Json, after: Json) -> UpdateStatus:
    return UpdateStatus(kind.id, before, after)


@pytest.mark.parametrize("kind", [kinds.SERVICE, kinds.CONFIGURATION, kinds.REVISION, kinds.ROUTE], ids=str)
def test_a_status_that_changes_only_its_reason_waits(kind: kinds.Kind) -> None:
    assert status_writes.can_wait([write(kind, body(), body(reason="Other"))])


@pytest.mark.parametrize(
    ("kind", "before", "after"),
    [
        (kinds.SERVICE, body(), body("True")),
        (kinds.SERVICE, body("True"), body("False")),
        (kinds.SERVICE, body(None), body()),
        (kinds.SERVICE, body(observedGeneration=1), body(observedGeneration=2)),
        (kinds.CONFIGURATION, body(), body(latestReadyRevisionName="r")),
        (kinds.REVISION, body(), body(containerStatuses=[{"name": "c", "imageDigest": "d"}])),
        (kinds.REVISION, body(), body(annotations={"knoll.dev/rollback": "worse"})),
        (kinds.ROUTE, body(ingress="True"), body()),
        (kinds.ROUTE, body(), body(annotations={"knoll.dev/rollout-in-progress": "[]"})),
        (kinds.BUILD_KIND, body(), body(reason="Other")),
    ],
    ids=[
        "ready",
        "failed",
        "first",
        "generation",
        "latest ready",
        "digests",
        "rollback",
        "ingress",
        "rollout",
        "build",
    ],
)
def test_what_others_act_on_is_written_at_once(kind: kinds.Kind, before: Json, after: Json) -> None:
    assert not status_writes.can_wait([write(kind, before, after)])


def test_a_status_waits_alone_or_with_a_routing_entry() -> None:
    lazy = write(kinds.ROUTE, body(), body(reason="Other"))
    assert status_writes.can_wait([lazy, ENTRY])
    assert not status_writes.can_wait([lazy, Emit(body(), "Normal", "Created", "")])
    assert not status_writes.can_wait([lazy, Create(kinds.CORE_SERVICE.id, body())])
    assert not status_writes.can_wait([ENTRY])
    assert not status_writes.can_wait([])


def test_the_first_status_is_part_of_the_new_object() -> None:
    new, child, status = body(None), Create(kinds.REVISION.id, body()), body()
    emit = Emit(new, "Normal", "Created", "")
    created, others = status_writes.with_first_status(new, [child, UpdateStatus(kinds.ROUTE.id, new, status), emit])
    assert created is status
    assert others == [child, emit]
    stored = {**new, "metadata": {**new["metadata"], "resourceVersion": "7"}}
    assert status_writes.about_stored(others, new, stored) == [child, Emit(stored, "Normal", "Created", "")]


def test_writes_to_other_objects_are_not_folded() -> None:
    new, other = body(None), body()
    update = Update(kinds.REVISION.id, other, body("True"))
    assert status_writes.with_first_status(new, [update]) == (new, [update])


def test_a_new_service_takes_few_writes() -> None:
    simulation = Simulation()
    simulation.service()
    simulation.ready("hello-00001")
    assert objects.is_ready(simulation.get(kinds.SERVICE))
    # Five objects; then the Service begins and is ready, the Configuration and the Route are ready, the Revision is
    # resolved and ready, and some intermediate statuses whose delay is over, because the simulation settles.
    assert simulation.writes <= 5 + 6 + 3
    assert simulation.reconciles <= 20
