"""The chain from a Service to its routing entry, reconciler by reconciler."""

from collections.abc import Callable

import pytest

from api.controllers.reconciler import objects
from knoll.values import kinds
from knoll.values import labels as well_known
from tests.unit.api.controllers.simulation import SHA, Simulation

SERVICE, CONFIGURATION, REVISION, ROUTE = kinds.SERVICE, kinds.CONFIGURATION, kinds.REVISION, kinds.ROUTE
HOST = "hello.default.localhost"


@pytest.fixture
def simulation() -> Simulation:
    return Simulation()


def test_a_new_service_gets_a_configuration_a_route_and_a_revision_of_its_name(simulation: Simulation) -> None:
    simulation.service()
    simulation.settle()
    assert simulation.names(CONFIGURATION) == ["hello"]
    assert simulation.names(ROUTE) == ["hello"]
    assert simulation.names(REVISION) == ["hello-00001"]
    assert simulation.names(kinds.CORE_SERVICE) == ["hello"]


def test_a_service_becomes_ready_only_after_every_step_of_the_chain(simulation: Simulation) -> None:
    simulation.service()
    seen = []
    steps: tuple[Callable[[], None], ...] = (
        lambda: None,
        lambda: simulation.resolved("hello-00001"),
        lambda: simulation.scaled("hello-00001"),
        simulation.acknowledge,
    )
    for step in steps:
        step()
        simulation.settle()
        seen.append([simulation.conditions(kind, name)["Ready"] for kind, name in (
            (SERVICE, "hello"), (CONFIGURATION, "hello"), (REVISION, "hello-00001"), (ROUTE, "hello"))])  # fmt: skip
    unknown = ("Unknown",)
    missing = ("Unknown", "RevisionMissing")
    assert seen == [
        [missing, unknown, ("Unknown", "ResolvingDigests"), missing],
        [missing, unknown, ("Unknown", "Deploying"), missing],
        [("Unknown", "IngressNotConfigured"), ("True",), ("True",), ("Unknown", "IngressNotConfigured")],
        [("True",), ("True",), ("True",), ("True",)],
    ]


def test_the_steady_state_of_a_default_service(simulation: Simulation) -> None:
    uid = simulation.service()["metadata"]["uid"]
    simulation.ready("hello-00001")
    service, configuration = simulation.get(SERVICE), simulation.get(CONFIGURATION)
    revision, route = simulation.get(REVISION, "hello-00001"), simulation.get(ROUTE)
    assert service["metadata"]["generation"] == configuration["metadata"]["generation"] == 1
    status = {key: value for key, value in service["status"].items() if key != "conditions"}
    assert status == {
        "observedGeneration": 1,
        "url": f"http://{HOST}",
        "address": {"url": "http://hello.default.svc.cluster.local"},
        "latestCreatedRevisionName": "hello-00001",
        "latestReadyRevisionName": "hello-00001",
        "traffic": [{"revisionName": "hello-00001", "latestRevision": True, "percent": 100}],
    }
    assert simulation.conditions(SERVICE) == {
        "ConfigurationsReady": ("True",),
        "Ready": ("True",),
        "RoutesReady": ("True",),
    }
    assert configuration["metadata"]["labels"] == {well_known.SERVICE: "hello", well_known.SERVICE_UID: uid}
    assert configuration["metadata"]["annotations"] == {
        well_known.CREATOR: "admin", well_known.LAST_MODIFIER: "admin", well_known.ROUTES: "hello"
    }  # fmt: skip
    assert revision["metadata"]["labels"] == {
        well_known.CONFIGURATION: "hello",
        well_known.CONFIGURATION_GENERATION: "1",
        well_known.CONFIGURATION_UID: configuration["metadata"]["uid"],
        well_known.SERVICE: "hello",
        well_known.SERVICE_UID: uid,
        well_known.ROUTING_STATE: "active",
    }
    assert set(revision["metadata"]["annotations"]) == {
        well_known.CREATOR, well_known.ROUTES, well_known.ROUTING_STATE_MODIFIED
    }  # fmt: skip
    assert revision["metadata"]["ownerReferences"] == [
        {
            "apiVersion": "serving.knative.dev/v1", "kind": "Configuration", "name": "hello",
            "uid": configuration["metadata"]["uid"], "controller": True, "blockOwnerDeletion": True,
        }
    ]  # fmt: skip
    assert revision["status"]["containerStatuses"] == [{"name": "user-container", "imageDigest": f"repo@{SHA}"}]
    assert (revision["status"]["actualReplicas"], revision["status"]["desiredReplicas"]) == (1, 1)
    assert revision["spec"] == service["spec"]["template"]["spec"]
    assert route["metadata"]["labels"] == {well_known.SERVICE: "hello"}
    assert route["metadata"]["finalizers"] == [well_known.ROUTE_FINALIZER]
    assert route["spec"]["traffic"] == [{"latestRevision": True, "percent": 100, "configurationName": "hello"}]
    assert simulation.conditions(ROUTE) == {
        "AllTrafficAssigned": ("True",),
        "CertificateProvisioned": ("True", "TLSNotEnabled"),
        "IngressReady": ("True",),
        "Ready": ("True",),
    }
    assert simulation.everything_again() == []


def test_a_new_service_costs_few_writes(simulation: Simulation) -> None:
    simulation.service()
    simulation.ready("hello-00001")
    assert simulation.writes <= 22


def test_an_image_change_moves_traffic_only_when_the_new_revision_is_ready(simulation: Simulation) -> None:
    simulation.service()
    simulation.ready("hello-00001")
    simulation.service(image="img:v2")
    simulation.settle()
    assert simulation.conditions(SERVICE)["Ready"][0] == "Unknown"
    assert objects.observed(simulation.get(SERVICE))
    assert simulation.get(SERVICE)["status"]["latestCreatedRevisionName"] == "hello-00002"
    assert simulation.get(SERVICE)["status"]["latestReadyRevisionName"] == "hello-00001"
    assert simulation.shares(HOST) == {"hello-00001": 100}
    assert simulation.conditions(ROUTE)["Ready"] == ("True",)
    simulation.ready("hello-00002")
    assert simulation.shares(HOST) == {"hello-00002": 100}
    assert simulation.conditions(SERVICE)["Ready"] == ("True",)
    labels = objects.labels(simulation.get(REVISION, "hello-00001"))
    assert labels[well_known.ROUTING_STATE] == "reserve"


def test_a_failing_new_revision_leaves_traffic_on_the_old_one(simulation: Simulation) -> None:
    simulation.service()
    simulation.ready("hello-00001")
    simulation.service(image="img:v2")
    simulation.settle()
    simulation.resolved("hello-00002", error='image "img:v2" could not be resolved: MANIFEST_UNKNOWN')
    simulation.settle()
    assert simulation.conditions(REVISION, "hello-00002")["ContainerHealthy"] == ("False", "ContainerMissing")
    assert simulation.conditions(CONFIGURATION)["Ready"] == ("False", "RevisionFailed")
    assert simulation.conditions(SERVICE)["Ready"] == ("False", "RevisionFailed")
    assert simulation.conditions(ROUTE)["Ready"] == ("True",)
    assert "MANIFEST_UNKNOWN" in simulation.message(SERVICE)
    assert '"hello-00002"' in simulation.message(SERVICE)
    assert simulation.shares(HOST) == {"hello-00001": 100}
    assert simulation.traffic() == [{"revisionName": "hello-00001", "latestRevision": True, "percent": 100}]


def test_the_walkthrough(simulation: Simulation) -> None:
    """v1; v2 with half; v3 with nothing; 40/30/30; rollback: shares, tag hosts and labels at each step."""

    def tagged(**percents: int) -> list[dict[str, object]]:
        named: list[dict[str, object]] = [
            {"tag": tag, "revisionName": f"hello-{tag}", "percent": percent, "latestRevision": False}
            for tag, percent in percents.items()
        ]
        return [*named, {"tag": "latest", "latestRevision": True, "percent": 0}]

    simulation.service(revision="hello-v1", image="v1")
    simulation.ready("hello-v1")
    assert simulation.shares(HOST) == {"hello-v1": 100}
    simulation.service(revision="hello-v2", image="v2", traffic=tagged(v1=50, v2=50))
    simulation.settle()
    assert simulation.shares(HOST) == {"hello-v1": 100}, "until v2 is ready"
    simulation.ready("hello-v2")
    assert simulation.shares(HOST) == {"hello-v1": 50, "hello-v2": 50}
    assert simulation.shares("v1-" + HOST) == {"hello-v1": 100}
    assert simulation.shares("latest-" + HOST) == {"hello-v2": 100}
    simulation.service(revision="hello-v3", image="v3", traffic=tagged(v1=50, v2=50, v3=0))
    simulation.ready("hello-v3")
    assert simulation.shares(HOST) == {"hello-v1": 50, "hello-v2": 50}
    assert simulation.shares("v3-" + HOST) == {"hello-v3": 100}
    simulation.service(revision="hello-v3", image="v3", traffic=tagged(v1=40, v2=30, v3=30))
    simulation.settle()
    simulation.acknowledge()
    simulation.settle()
    assert simulation.shares(HOST) == {"hello-v1": 40, "hello-v2": 30, "hello-v3": 30}
    assert simulation.conditions(SERVICE)["Ready"] == ("True",)
    assert simulation.traffic()[0] == {
        "revisionName": "hello-v1", "latestRevision": False, "percent": 40, "tag": "v1", "url": f"http://v1-{HOST}"
    }  # fmt: skip
    assert simulation.names(kinds.CORE_SERVICE) == ["hello", "latest-hello", "v1-hello", "v2-hello", "v3-hello"]
    simulation.service(revision="hello-v3", image="v3", traffic=[{"revisionName": "hello-v1", "percent": 100}])
    simulation.settle()
    simulation.acknowledge()
    simulation.settle()
    assert simulation.shares(HOST) == {"hello-v1": 100}
    assert simulation.names(kinds.CORE_SERVICE) == ["hello"]
    states = {
        name: objects.labels(simulation.get(REVISION, name))[well_known.ROUTING_STATE]
        for name in simulation.names(REVISION)
    }
    assert states == {"hello-v1": "active", "hello-v2": "reserve", "hello-v3": "reserve"}
    assert simulation.everything_again() == []


def test_deleting_a_service_takes_its_children_and_its_routing_entry(simulation: Simulation) -> None:
    simulation.service()
    simulation.ready("hello-00001")
    simulation.delete(SERVICE, "hello")
    simulation.settle()
    for kind in (CONFIGURATION, ROUTE, REVISION, kinds.CORE_SERVICE):
        assert simulation.names(kind) == []
    assert simulation.state.routing == {}
    assert simulation.state.resolutions == {}


def test_a_service_made_again_under_its_name_starts_afresh(simulation: Simulation) -> None:
    simulation.service()
    simulation.ready("hello-00001")
    simulation.delete(SERVICE, "hello")
    simulation.settle()
    simulation.service()
    simulation.settle()
    assert simulation.conditions(SERVICE)["Ready"] == ("Unknown", "RevisionMissing")
    assert simulation.conditions(REVISION, "hello-00001")["Ready"] == ("Unknown", "ResolvingDigests")
    assert simulation.state.routing == {}


def test_without_an_activator_a_route_is_not_ready_and_says_why() -> None:
    simulation = Simulation(activators=0)
    simulation.service()
    simulation.settle()
    simulation.resolved("hello-00001")
    simulation.settle()
    simulation.scaled("hello-00001")
    simulation.settle()
    assert simulation.conditions(SERVICE)["Ready"] == ("Unknown", "IngressNotConfigured")
    assert "activator" in simulation.message(SERVICE)
    assert simulation.shares(HOST) == {"hello-00001": 100}
    simulation.state.activators = 1
    simulation.acknowledge()
    simulation.settle()
    assert simulation.conditions(SERVICE)["Ready"] == ("True",)


def test_a_ready_revision_stays_ready_at_zero(simulation: Simulation) -> None:
    simulation.service()
    simulation.ready("hello-00001")
    simulation.scaled("hello-00001", desired=0, actual=0, active="False", reason="NoTraffic")
    simulation.settle()
    assert simulation.conditions(REVISION, "hello-00001") == {
        "Active": ("False", "NoTraffic"),
        "ContainerHealthy": ("True",),
        "Ready": ("True",),
        "ResourcesAvailable": ("True",),
    }
    assert simulation.get(REVISION, "hello-00001")["status"]["actualReplicas"] == 0
    assert simulation.conditions(SERVICE)["Ready"] == ("True",)


def test_rolling_back_by_the_name_of_an_earlier_revision_takes_that_one_up_again(simulation: Simulation) -> None:
    for version in ("v1", "v2"):
        simulation.service(revision=f"hello-{version}", image=version)
        simulation.ready(f"hello-{version}")
    simulation.service(revision="hello-v1", image="v1")
    simulation.settle()
    simulation.acknowledge()
    simulation.settle()
    assert simulation.names(REVISION) == ["hello-v1", "hello-v2"]
    assert simulation.get(SERVICE)["status"]["latestReadyRevisionName"] == "hello-v1"
    assert simulation.shares(HOST) == {"hello-v1": 100}
    simulation.service(revision="hello-v4", image="v4")
    simulation.settle()
    assert simulation.get(SERVICE)["status"]["latestReadyRevisionName"] == "hello-v1", "not v2, which is newer than v1"
    assert simulation.shares(HOST) == {"hello-v1": 100}


def test_an_intermediate_revision_serves_while_the_newest_is_not_ready(simulation: Simulation) -> None:
    for image in ("v1", "v2", "v3"):
        simulation.service(image=image)
        simulation.settle()
    simulation.ready("hello-00002")
    assert simulation.get(SERVICE)["status"]["latestReadyRevisionName"] == "hello-00002"
    assert simulation.conditions(SERVICE)["ConfigurationsReady"] == ("Unknown",)
    simulation.ready("hello-00001")
    assert simulation.get(SERVICE)["status"]["latestReadyRevisionName"] == "hello-00002", "never backwards"
    simulation.ready("hello-00003")
    assert simulation.shares(HOST) == {"hello-00003": 100}
    assert simulation.conditions(SERVICE)["Ready"] == ("True",)
