"""Conditions, reasons and messages in every situation that users of Knative know, each with its row."""

from collections.abc import Callable
from typing import Any

import pytest

from api.controllers.engine import dispatch
from api.controllers.reconciler import failure, objects
from api.controllers.service import service
from knoll.messages.scale import StartFailure
from knoll.values import kinds
from tests.unit.api.controllers.simulation import NOW, Simulation

SERVICE, CONFIGURATION, REVISION, ROUTE = kinds.SERVICE, kinds.CONFIGURATION, kinds.REVISION, kinds.ROUTE
REV = "hello-00001"
Row = tuple[str, ...]

MISSING_UNKNOWN: Row = ("Unknown", "RevisionMissing")
MISSING_FALSE: Row = ("False", "RevisionMissing")
FAILED: Row = ("False", "RevisionFailed")
UNKNOWN: Row = ("Unknown",)
TRUE: Row = ("True",)


def looking_up(simulation: Simulation) -> None:
    simulation.service()


def starting(simulation: Simulation) -> None:
    simulation.service()
    simulation.settle()
    simulation.resolved(REV)


def queued(simulation: Simulation) -> None:
    starting(simulation)
    simulation.settle()
    simulation.scaled(REV, actual=0, reached=False, active="Unknown", reason="Queued")


def not_resolvable(simulation: Simulation) -> None:
    simulation.service()
    simulation.settle()
    simulation.resolved(REV, error='the image "img:v1" could not be resolved: MANIFEST_UNKNOWN: manifest unknown')


def fails(*failure_args: Any, final: bool = True) -> Callable[[Simulation], None]:
    def prepare(simulation: Simulation) -> None:
        starting(simulation)
        simulation.settle()
        simulation.fails(REV, *failure_args, final=final)

    return prepare


def serving(simulation: Simulation) -> None:
    simulation.service()
    simulation.ready(REV)


def crashing(simulation: Simulation) -> None:
    serving(simulation)
    simulation.scaled(
        REV, failure=StartFailure("ContainerHealthy", "ExitCode3", "Container failed with: no module named app")
    )


def idle(simulation: Simulation) -> None:
    serving(simulation)
    simulation.scaled(REV, desired=0, actual=0, active="False", reason="NoTraffic")


def timed_out(simulation: Simulation) -> None:
    starting(simulation)
    simulation.settle()
    simulation.fails(REV, "ResourcesAvailable", "ProgressDeadlineExceeded", "the Revision did not come up within 600 s")
    simulation.settle()
    old = simulation.state.scale[f"default/{REV}"]
    simulation.scaled(REV, desired=0, actual=0, reached=False, active="False", reason="TimedOut", failure=old.failure)


SITUATIONS: dict[str, tuple[Callable[[Simulation], None], dict[str, Row], Row, Row, tuple[Row, Row]]] = {
    # situation: prepare, Revision's conditions, Configuration's Ready, Route's AllTrafficAssigned,
    #            Service's ConfigurationsReady and RoutesReady
    "the digest look-up runs": (
        looking_up,
        {
            "Active": ("Unknown", "ResolvingDigests"),
            "ContainerHealthy": ("Unknown", "ResolvingDigests"),
            "ResourcesAvailable": ("Unknown", "ResolvingDigests"),
            "Ready": ("Unknown", "ResolvingDigests"),
        },
        UNKNOWN, MISSING_UNKNOWN, (UNKNOWN, MISSING_UNKNOWN),
    ),
    "it is deployed": (
        starting,
        {
            "Active": ("Unknown", "Deploying"),
            "ContainerHealthy": ("Unknown", "Deploying"),
            "ResourcesAvailable": ("Unknown", "Deploying"),
            "Ready": ("Unknown", "Deploying"),
        },
        UNKNOWN, MISSING_UNKNOWN, (UNKNOWN, MISSING_UNKNOWN),
    ),
    "it starts": (
        queued,
        {
            "Active": ("Unknown", "Queued"),
            "ContainerHealthy": ("Unknown", "Deploying"),
            "ResourcesAvailable": ("Unknown", "Deploying"),
            "Ready": ("Unknown", "Deploying"),
        },
        UNKNOWN, MISSING_UNKNOWN, (UNKNOWN, MISSING_UNKNOWN),
    ),
    "the tag does not exist": (
        not_resolvable,
        {
            "ContainerHealthy": ("False", "ContainerMissing"),
            "ResourcesAvailable": ("Unknown", "ResolvingDigests"),
            "Ready": ("False", "ContainerMissing"),
        },
        FAILED, MISSING_FALSE, (FAILED, MISSING_FALSE),
    ),
    "the pull fails": (
        fails("ResourcesAvailable", "ErrImagePull", "cannot pull repo@sha256:12"),
        {
            "ContainerHealthy": ("Unknown", "Deploying"),
            "ResourcesAvailable": ("False", "ErrImagePull"),
            "Ready": ("False", "ErrImagePull"),
        },
        FAILED, MISSING_FALSE, (FAILED, MISSING_FALSE),
    ),
    "the pull fails again and again": (
        fails("ResourcesAvailable", "ImagePullBackOff", "cannot pull repo@sha256:12"),
        {"ResourcesAvailable": ("False", "ImagePullBackOff"), "Ready": ("False", "ImagePullBackOff")},
        FAILED, MISSING_FALSE, (FAILED, MISSING_FALSE),
    ),
    "the pull failed and the progress deadline has not passed": (
        fails("ResourcesAvailable", "ErrImagePull", "cannot pull repo@sha256:12", final=False),
        {"ResourcesAvailable": ("Unknown", "ErrImagePull"), "Ready": ("Unknown", "ErrImagePull")},
        ("Unknown", "ErrImagePull"), MISSING_UNKNOWN, (("Unknown", "ErrImagePull"), MISSING_UNKNOWN),
    ),
    "the process exits before it is ready": (
        fails("ContainerHealthy", "ExitCode5", "the container exited: no database"),
        {
            "ContainerHealthy": ("False", "ExitCode5"),
            "ResourcesAvailable": ("Unknown", "Deploying"),
            "Ready": ("False", "ExitCode5"),
        },
        FAILED, MISSING_FALSE, (FAILED, MISSING_FALSE),
    ),
    "it cannot be placed": (
        fails("ResourcesAvailable", "Unschedulable", "0/1 nodes are available: 1 Insufficient cpu"),
        {"ResourcesAvailable": ("False", "Unschedulable"), "Ready": ("False", "Unschedulable")},
        FAILED, MISSING_FALSE, (FAILED, MISSING_FALSE),
    ),
    "the quota is exceeded": (
        fails("ResourcesAvailable", "FailedCreate", "forbidden: exceeded quota: small"),
        {"ResourcesAvailable": ("False", "FailedCreate"), "Ready": ("False", "FailedCreate")},
        FAILED, MISSING_FALSE, (FAILED, MISSING_FALSE),
    ),
    "the progress deadline passed": (
        timed_out,
        {
            "Active": ("False", "TimedOut"),
            "ResourcesAvailable": ("False", "ProgressDeadlineExceeded"),
            "Ready": ("False", "ProgressDeadlineExceeded"),
        },
        FAILED, MISSING_FALSE, (FAILED, MISSING_FALSE),
    ),
    "it serves": (
        serving,
        {"Active": TRUE, "ContainerHealthy": TRUE, "ResourcesAvailable": TRUE, "Ready": TRUE},
        TRUE, TRUE, (TRUE, TRUE),
    ),
    "it serves, and its container ends again and again": (
        crashing,
        {"Active": ("Unknown", "ExitCode3"), "ContainerHealthy": TRUE, "ResourcesAvailable": TRUE, "Ready": TRUE},
        TRUE, TRUE, (TRUE, TRUE),
    ),
    "it is idle at zero": (
        idle,
        {"Active": ("False", "NoTraffic"), "ContainerHealthy": TRUE, "ResourcesAvailable": TRUE, "Ready": TRUE},
        TRUE, TRUE, (TRUE, TRUE),
    ),
}  # fmt: skip


@pytest.mark.parametrize("situation", SITUATIONS)
def test_every_kind_reports_the_situation(situation: str) -> None:
    prepare, revision, configuration, assigned, service = SITUATIONS[situation]
    simulation = Simulation()
    prepare(simulation)
    simulation.settle()
    conditions = simulation.conditions(REVISION, REV)
    assert {type_: conditions[type_] for type_ in revision} == revision
    assert simulation.conditions(CONFIGURATION)["Ready"] == configuration
    assert simulation.conditions(ROUTE)["AllTrafficAssigned"] == assigned
    assert simulation.conditions(SERVICE)["ConfigurationsReady"] == service[0]
    assert simulation.conditions(SERVICE)["RoutesReady"] == service[1]
    assert simulation.everything_again() == []


@pytest.mark.parametrize("situation", SITUATIONS)
def test_a_failure_gives_a_reason_and_a_message_on_every_kind(situation: str) -> None:
    prepare = SITUATIONS[situation][0]
    simulation = Simulation()
    prepare(simulation)
    simulation.settle()
    if simulation.conditions(REVISION, REV)["Ready"][0] != "False":
        return
    text = simulation.message(REVISION, REV)
    assert text
    assert text in simulation.message(CONFIGURATION)
    assert text in simulation.message(SERVICE, type_="ConfigurationsReady")
    for kind in (SERVICE, CONFIGURATION, ROUTE):
        status, *reason = simulation.conditions(kind)["Ready"]
        assert status == "False"
        assert reason
        assert simulation.message(kind)


@pytest.mark.parametrize("situation", SITUATIONS)
def test_only_active_has_severity_info(situation: str) -> None:
    simulation = Simulation()
    SITUATIONS[situation][0](simulation)
    simulation.settle()
    severities = {
        condition["type"]: condition.get("severity")
        for condition in objects.status(simulation.get(REVISION, REV))["conditions"]
    }
    assert severities == {"Active": "Info", "ContainerHealthy": None, "Ready": None, "ResourcesAvailable": None}


TRAFFIC: dict[str, tuple[list[dict[str, Any]], Row]] = {
    "a missing revision": ([{"revisionName": "hello-zzzzz", "percent": 100}], ("False", "RevisionMissing")),
    "a revision that is not ready": ([{"revisionName": "hello-00002", "percent": 100}], ("Unknown", "RevisionMissing")),
    "a failed revision": ([{"revisionName": "hello-00003", "percent": 100}], ("False", "RevisionMissing")),
    "another service's revision": ([{"revisionName": "other-00001", "percent": 100}], ("False", "RevisionNotOwned")),
    "a failure beside something not ready": (
        [{"revisionName": "hello-00002", "percent": 50}, {"revisionName": "hello-zzzzz", "percent": 50}],
        ("False", "RevisionMissing"),
    ),
    "percents that do not sum to 100": ([{"revisionName": REV, "percent": 99}], ("False", "InvalidTraffic")),
}


@pytest.mark.parametrize("situation", TRAFFIC)
def test_traffic_without_a_ready_target_stays_where_it_is(situation: str) -> None:
    traffic, expected = TRAFFIC[situation]
    simulation = Simulation()
    simulation.service(name="other")
    simulation.ready("other-00001", route="other")
    serving(simulation)
    simulation.service(image="v2")
    simulation.settle()
    simulation.service(image="v3")
    simulation.settle()
    simulation.resolved("hello-00003", error="no such image")
    simulation.settle()
    simulation.service(image="v3", traffic=traffic)
    simulation.settle()
    assert simulation.conditions(ROUTE)["AllTrafficAssigned"] == expected
    assert simulation.conditions(ROUTE)["Ready"] == expected
    assert simulation.conditions(ROUTE)["IngressReady"] == TRUE, "what was programmed still is"
    assert simulation.conditions(SERVICE)["RoutesReady"] == expected
    assert simulation.shares("hello.default.localhost") == {REV: 100}
    assert simulation.traffic() == [{"revisionName": REV, "latestRevision": True, "percent": 100}]


def test_a_deleted_revision_is_reported_missing_until_traffic_can_move() -> None:
    simulation = Simulation()
    serving(simulation)
    simulation.service(
        image="v2",
        traffic=[{"revisionName": REV, "percent": 50, "tag": "old"}, {"revisionName": "hello-00002", "percent": 50}],
    )
    simulation.ready("hello-00002")
    simulation.settle()
    assert simulation.shares("hello.default.localhost") == {REV: 50, "hello-00002": 50}
    (entry,) = (entry for _, entry in simulation.state.routing.values())
    assert entry.missing == ()
    simulation.delete(REVISION, REV)
    simulation.settle()
    (entry,) = (entry for _, entry in simulation.state.routing.values())
    assert entry.missing == (f"default/{REV}",)
    assert simulation.conditions(ROUTE)["Ready"] == ("False", "RevisionMissing")
    assert simulation.shares("hello.default.localhost") == {REV: 50, "hello-00002": 50}, "shares stay as they were"
    simulation.service(image="v2", traffic=[{"revisionName": "hello-00002", "percent": 100}])
    simulation.settle()
    (entry,) = (entry for _, entry in simulation.state.routing.values())
    assert (entry.missing, list(entry.revisions)) == ((), ["default/hello-00002"])


def test_a_route_to_a_missing_configuration(simulation: Simulation) -> None:
    simulation.apply(
        ROUTE, "alone", {"traffic": [{"configurationName": "nothing", "percent": 100, "latestRevision": True}]}
    )
    simulation.settle()
    assert simulation.conditions(ROUTE, "alone")["AllTrafficAssigned"] == ("False", "ConfigurationMissing")
    assert '"nothing"' in simulation.message(ROUTE, "alone")
    assert "traffic" not in simulation.get(ROUTE, "alone")["status"]


def test_children_that_have_not_seen_the_newest_spec_are_out_of_date(simulation: Simulation) -> None:
    serving(simulation)
    before = simulation.get(SERVICE)
    simulation.service(image="v2")
    for action in dispatch.decide((SERVICE.id, "default", "hello"), simulation.state, NOW).actions:
        simulation.carry_out(action)
    assert before["metadata"]["generation"] == 1
    assert simulation.conditions(SERVICE)["ConfigurationsReady"] == ("Unknown", "OutOfDate")
    assert simulation.conditions(SERVICE)["Ready"][0] == "Unknown"
    assert objects.observed(simulation.get(SERVICE))


def test_the_ingress_is_not_ready_before_every_activator_acknowledged_it(simulation: Simulation) -> None:
    starting(simulation)
    simulation.settle()
    simulation.scaled(REV)
    simulation.settle()
    assert simulation.conditions(ROUTE)["IngressReady"] == ("Unknown", "IngressNotConfigured")
    assert simulation.conditions(ROUTE)["AllTrafficAssigned"] == TRUE
    assert simulation.conditions(SERVICE)["RoutesReady"] == ("Unknown", "IngressNotConfigured")


def test_a_service_reports_a_route_whose_status_is_outdated(simulation: Simulation) -> None:
    serving(simulation)
    route = simulation.get(ROUTE)
    status = {**route["status"], "traffic": [{"revisionName": "hello-00000", "latestRevision": True, "percent": 100}]}
    observed = service.ServiceInputs(
        simulation.get(SERVICE), configuration=simulation.get(CONFIGURATION), route={**route, "status": status}
    )
    (action,) = service.reconcile(observed, NOW).actions
    routes_ready = objects.condition(action.body, "RoutesReady")  # type: ignore[union-attr]
    assert routes_ready is not None
    assert (routes_ready["status"], routes_ready["reason"]) == ("Unknown", "TrafficNotMigrated")


def test_a_revision_name_of_the_user_that_is_taken_by_another_service(simulation: Simulation) -> None:
    simulation.service(name="hello", revision="hello-other-v1")
    simulation.ready("hello-other-v1")
    simulation.service(name="hello-other", image="v2", revision="hello-other-v1")
    simulation.settle()
    assert simulation.conditions(CONFIGURATION, "hello-other")["Ready"] == FAILED
    assert simulation.conditions(SERVICE, "hello-other")["ConfigurationsReady"] == FAILED
    assert simulation.conditions(SERVICE, "hello-other")["RoutesReady"] == ("False", "RevisionNameTaken")
    assert '"hello-other-v1"' in simulation.message(SERVICE, "hello-other", "RoutesReady")
    assert simulation.everything_again() == []


@pytest.mark.parametrize(
    ("kind", "condition", "spec"),
    [
        (CONFIGURATION, "ConfigurationsReady", {"template": {"spec": {"containers": [{"name": "c", "image": "i"}]}}}),
        (ROUTE, "RoutesReady", {"traffic": [{"configurationName": "x", "percent": 100, "latestRevision": True}]}),
    ],
    ids=["configuration", "route"],
)
def test_a_child_of_the_name_that_is_not_owned(
    simulation: Simulation, kind: kinds.Kind, condition: str, spec: dict[str, Any]
) -> None:
    simulation.apply(kind, "hello", spec)
    simulation.settle()
    simulation.service()
    simulation.settle()
    assert simulation.conditions(SERVICE)[condition] == ("False", "NotOwned")
    assert simulation.conditions(SERVICE)["Ready"] == ("False", "NotOwned")
    assert simulation.get(kind)["spec"] == spec, "it is left alone"


def test_a_core_service_of_the_name_that_is_not_owned_keeps_the_route_from_being_programmed(
    simulation: Simulation,
) -> None:
    simulation.apply(kinds.CORE_SERVICE, "hello", {"type": "ClusterIP"})
    starting(simulation)
    simulation.settle()
    simulation.scaled(REV)
    simulation.settle()
    assert simulation.conditions(ROUTE)["IngressReady"] == ("False", "NotOwned")
    assert simulation.state.routing == {}
    simulation.delete(kinds.CORE_SERVICE, "hello")
    simulation._dirty[ROUTE.id, "default", "hello"] = None
    simulation.settle()
    simulation.acknowledge()
    simulation.settle()
    assert simulation.conditions(SERVICE)["Ready"] == TRUE


def test_a_generation_that_could_not_be_reconciled_is_reported(simulation: Simulation) -> None:
    serving(simulation)
    assert failure.unobserved(SERVICE, simulation.get(SERVICE), NOW) is None
    changed = simulation.service(image="v2")
    unobserved = failure.unobserved(SERVICE, changed, NOW)
    assert unobserved is not None
    ready = objects.condition(unobserved)
    assert ready is not None
    assert (ready["status"], ready["reason"]) == ("Unknown", "NewObservedGenFailure")
    assert objects.observed(unobserved)
    types = [condition["type"] for condition in unobserved["status"]["conditions"]]
    assert types == sorted(types)


@pytest.fixture
def simulation() -> Simulation:
    return Simulation()
