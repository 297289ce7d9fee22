"""Labels, annotations and owners: what is copied to which object, what is removed with its source, and what stays."""

import pytest

from api.controllers.reconciler import objects
from api.controllers.route.traffic import request_policy
from knoll.values import kinds
from knoll.values import labels as well_known
from knoll.values.json import Json
from tests.unit.api.controllers.simulation import Simulation

SERVICE, CONFIGURATION, REVISION, ROUTE, CORE = (
    kinds.SERVICE, kinds.CONFIGURATION, kinds.REVISION, kinds.ROUTE, kinds.CORE_SERVICE,
)  # fmt: skip
HOST = "hello.default.localhost"


@pytest.fixture
def simulation() -> Simulation:
    simulation = Simulation()
    simulation.service(labels={"team": "a", "old": "x"}, annotations={"note": "n", "old-note": "x"})
    simulation.ready("hello-00001")
    return simulation


@pytest.mark.parametrize("kind", [CONFIGURATION, ROUTE, CORE], ids=lambda kind: f"{kind.group or 'core'}-{kind.kind}")
def test_labels_and_annotations_of_the_service_are_copied(simulation: Simulation, kind: kinds.Kind) -> None:
    body = simulation.get(kind)
    assert {"team": "a", "old": "x"}.items() <= objects.labels(body).items()
    assert {"note": "n", "old-note": "x"}.items() <= objects.annotations(body).items()


@pytest.mark.parametrize(("kind", "stays"), [(CONFIGURATION, False), (ROUTE, False), (CORE, True)])
def test_a_key_that_is_removed_goes_from_the_children_and_stays_on_the_placeholder(
    simulation: Simulation, kind: kinds.Kind, stays: bool
) -> None:
    simulation.service(labels={"team": "b"}, annotations={"note": "m"})
    simulation.settle()
    body = simulation.get(kind)
    assert objects.labels(body)["team"] == "b"
    assert objects.annotations(body)["note"] == "m"
    assert ("old" in objects.labels(body)) is stays
    assert ("old-note" in objects.annotations(body)) is stays


def test_metadata_makes_neither_a_generation_nor_a_revision(simulation: Simulation) -> None:
    simulation.service(labels={"team": "b"})
    simulation.settle()
    assert [objects.generation(simulation.get(kind)) for kind in (SERVICE, CONFIGURATION, ROUTE)] == [1, 1, 1]
    assert simulation.names(REVISION) == ["hello-00001"]
    assert simulation.conditions(SERVICE)["Ready"] == ("True",)


def test_the_labels_of_the_service_are_not_copied_to_the_revision(simulation: Simulation) -> None:
    assert "team" not in objects.labels(simulation.get(REVISION, "hello-00001"))
    assert "note" not in objects.annotations(simulation.get(REVISION, "hello-00001"))


@pytest.mark.parametrize(
    ("annotation", "on_configuration", "on_route"),
    [(well_known.LAST_APPLIED, False, False), (well_known.ROLLOUT_DURATION, False, True), ("mine", True, True)],
)
def test_some_annotations_stay_where_they_are(annotation: str, on_configuration: bool, on_route: bool) -> None:
    simulation = Simulation()
    simulation.service(annotations={annotation: "10s"})
    simulation.settle()
    assert (annotation in objects.annotations(simulation.get(CONFIGURATION))) is on_configuration
    assert (annotation in objects.annotations(simulation.get(ROUTE))) is on_route


def test_template_labels_and_annotations_go_to_the_revision_and_never_over_knatives_own() -> None:
    simulation = Simulation()
    body = simulation.service()
    template = {
        **body["spec"]["template"],
        "metadata": {
            "labels": {"app": "x", well_known.CONFIGURATION: "forged"},
            "annotations": {"autoscaling.knative.dev/min-scale": "2"},
        },
    }
    simulation.apply(SERVICE, "hello", {**body["spec"], "template": template})
    simulation.settle()
    (name,) = simulation.names(REVISION)
    revision = simulation.get(REVISION, name)
    assert objects.labels(revision)["app"] == "x"
    assert objects.labels(revision)[well_known.CONFIGURATION] == "hello"
    assert objects.annotations(revision)["autoscaling.knative.dev/min-scale"] == "2"


def test_every_generation_makes_a_revision_even_for_a_template_label() -> None:
    simulation = Simulation()
    body = simulation.service()
    simulation.settle()
    template = {**body["spec"]["template"], "metadata": {"labels": {"v": "2"}}}
    simulation.apply(SERVICE, "hello", {**body["spec"], "template": template})
    simulation.settle()
    assert simulation.names(REVISION) == ["hello-00001", "hello-00002"]


def test_a_standalone_configuration_gets_no_labels_or_annotations() -> None:
    simulation = Simulation()
    spec = {"template": {"spec": {"containers": [{"name": "c", "image": "i"}]}}}
    simulation.apply(CONFIGURATION, "alone", spec, labels={"a": "b"}, annotations={"c": "d"})
    simulation.ready("alone-00001")
    body = simulation.get(CONFIGURATION, "alone")
    assert objects.labels(body) == {"a": "b"}
    assert objects.annotations(body) == {"c": "d"}
    assert objects.labels(simulation.get(REVISION, "alone-00001"))[well_known.ROUTING_STATE] == "pending"
    simulation.apply(CONFIGURATION, "alone", spec, labels={"x": "y"}, annotations={})
    simulation.settle()
    assert objects.labels(simulation.get(CONFIGURATION, "alone")) == {"x": "y"}
    assert simulation.names(REVISION) == ["alone-00001"]


def test_a_standalone_route_labels_its_revisions_until_it_is_deleted() -> None:
    simulation = Simulation()
    simulation.apply(CONFIGURATION, "app", {"template": {"spec": {"containers": [{"name": "c", "image": "i"}]}}})
    simulation.ready("app-00001")
    traffic = [{"configurationName": "app", "percent": 100, "latestRevision": True, "tag": "now"}]
    simulation.apply(ROUTE, "front", {"traffic": traffic})
    simulation.settle()
    simulation.acknowledge("front")
    simulation.settle()
    revision = simulation.get(REVISION, "app-00001")
    assert objects.labels(revision)[well_known.ROUTING_STATE] == "active"
    assert objects.annotations(revision)[well_known.ROUTES] == "front"
    assert objects.annotations(simulation.get(CONFIGURATION, "app"))[well_known.ROUTES] == "front"
    assert simulation.shares("now-front.default.localhost", "front") == {"app-00001": 100}
    simulation.delete(ROUTE, "front")
    simulation.settle()
    revision = simulation.get(REVISION, "app-00001")
    assert objects.labels(revision)[well_known.ROUTING_STATE] == "reserve"
    assert well_known.ROUTES not in objects.annotations(revision)
    assert well_known.ROUTES not in objects.annotations(simulation.get(CONFIGURATION, "app"))
    assert simulation.everything_again() == []


def test_a_revision_that_is_left_stays_active_until_the_route_has_settled(simulation: Simulation) -> None:
    simulation.service(image="v2")
    simulation.settle()
    simulation.resolved("hello-00002")
    simulation.settle()
    simulation.scaled("hello-00002")
    simulation.settle()
    assert objects.labels(simulation.get(REVISION, "hello-00001"))[well_known.ROUTING_STATE] == "active"
    simulation.acknowledge()
    simulation.settle()
    assert objects.labels(simulation.get(REVISION, "hello-00001"))[well_known.ROUTING_STATE] == "reserve"


def test_the_time_of_the_routing_state_changes_only_with_it(simulation: Simulation) -> None:
    def modified() -> str:
        return objects.annotations(simulation.get(REVISION, "hello-00001"))[well_known.ROUTING_STATE_MODIFIED]

    before = modified()
    simulation.now += 100
    simulation.scaled("hello-00001", actual=3)
    simulation.settle()
    assert modified() == before
    simulation.service(image="v2")
    simulation.ready("hello-00002")
    assert modified() != before


@pytest.mark.parametrize("tag", ["", "green"])
def test_placeholders_belong_to_the_route_and_carry_its_name(tag: str) -> None:
    simulation = Simulation()
    simulation.service(traffic=[{"latestRevision": True, "percent": 100, **({"tag": tag} if tag else {})}])
    simulation.settle()
    body = simulation.get(CORE, f"{tag}-hello" if tag else "hello")
    owner = objects.controller_of(body)
    assert owner is not None
    assert (owner["kind"], owner["uid"]) == ("Route", simulation.get(ROUTE)["metadata"]["uid"])
    assert objects.labels(body)[well_known.ROUTE] == "hello"


def test_a_service_for_instances_only_has_no_public_host(simulation: Simulation) -> None:
    simulation.service(labels={well_known.VISIBILITY: "cluster-local"})
    simulation.settle()
    simulation.acknowledge()
    simulation.settle()
    entry = simulation.state.routing["default/hello"][1]
    assert entry.hosts == {}
    assert set(entry.local_hosts) == {"hello.default.svc.cluster.local", "hello.default.svc", "hello.default"}
    assert simulation.get(SERVICE)["status"]["url"] == "http://hello.default.svc.cluster.local"
    assert simulation.get(SERVICE)["status"]["address"] == {"url": "http://hello.default.svc.cluster.local"}
    assert well_known.VISIBILITY not in objects.labels(simulation.get(CORE))


def test_a_user_makes_a_tag_cluster_local_on_its_placeholder() -> None:
    simulation = Simulation()
    simulation.service(traffic=[{"latestRevision": True, "percent": 100, "tag": "green"}])
    simulation.ready("hello-00001")
    body = simulation.get(CORE, "green-hello")
    local = {**objects.labels(body), well_known.VISIBILITY: "cluster-local"}
    simulation.store(CORE.id, objects.changed(body, new_labels=local))
    simulation.settle()
    entry = simulation.state.routing["default/hello"][1]
    assert set(entry.hosts) == {HOST}
    assert "green-hello.default" in entry.local_hosts
    assert simulation.traffic(ROUTE)[0]["url"] == "http://green-hello.default.svc.cluster.local"
    simulation.acknowledge()
    simulation.settle()
    assert objects.labels(simulation.get(CORE, "green-hello"))[well_known.VISIBILITY] == "cluster-local", "it stays"


@pytest.mark.parametrize(("value", "sticky"), [("true", True), ("True", True), ("false", False), ("", False)])
def test_the_annotation_for_session_affinity_reaches_the_activators(value: str, sticky: bool) -> None:
    simulation = Simulation()
    simulation.service(annotations={"knoll.dev/session-affinity": value} if value else {})
    simulation.ready("hello-00001")
    assert simulation.state.routing["default/hello"][1].sticky is sticky


def test_long_names_are_shortened_as_knative_does() -> None:
    simulation = Simulation()
    name = "a" * 63
    simulation.service(name=name)
    simulation.settle()
    (revision,) = simulation.names(REVISION)
    assert len(revision) <= 63
    assert revision.endswith("-00001")


@pytest.mark.parametrize(
    ("spec", "plane"),
    [
        ({}, (0, 0.0, 0.0, 0.0, False)),
        ({"containerConcurrency": 5, "timeoutSeconds": 10}, (5, 10.0, 0.0, 0.0, False)),
        ({"responseStartTimeoutSeconds": 3, "idleTimeoutSeconds": 4}, (0, 0.0, 3.0, 4.0, False)),
        ({"containers": [{"name": "s"}, {"name": "c", "ports": [{"name": "h2c"}]}]}, (0, 0.0, 0.0, 0.0, True)),
        ({"containers": [{"name": "c", "ports": [{"name": "http1"}]}]}, (0, 0.0, 0.0, 0.0, False)),
    ],
)
def test_the_request_policy_of_a_revision(spec: Json, plane: tuple[float | bool, ...]) -> None:
    settings = request_policy({"spec": {"containers": [{"name": "c"}], **spec}})
    actual = (
        settings.concurrency,
        settings.timeout,
        settings.response_start_timeout,
        settings.idle_timeout,
        settings.h2c,
    )
    assert actual == plane
