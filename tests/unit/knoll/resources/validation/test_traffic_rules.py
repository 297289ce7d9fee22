import pytest
from hypothesis import given
from hypothesis import strategies as st

from knoll.resources.admission.parsing import parse
from knoll.resources.models.meta import TrafficTarget
from knoll.resources.models.route import RouteSpec
from knoll.resources.validation.problems import merged
from knoll.resources.validation.traffic_rules import defaulted_traffic, traffic_problems
from knoll.values.json import Json
from knoll.values.names import dns_1035_problems
from tests.strategies import percents, traffic


def _targets(*targets: Json) -> tuple[TrafficTarget, ...]:
    return parse(RouteSpec, {"traffic": list(targets)})[0].traffic


def _problems(*targets: Json, in_service: bool = True) -> list[str]:
    traffic = defaulted_traffic(_targets(*targets), in_service=in_service)
    return [str(problem) for problem in merged(traffic_problems(traffic, "spec.traffic", in_service=in_service))]


LATEST = {"latestRevision": True, "percent": 100}
T = "spec.traffic"
SERVICE: list[tuple[str, list[Json], list[str]]] = [
    ("nothing", [], []),
    ("all to the latest", [LATEST], []),
    ("the latest, unsaid", [{"percent": 100}], []),
    ("a revision", [{"revisionName": "a-1", "percent": 100}], []),
    (
        "the article's split",
        [
            {"tag": "v1", "revisionName": "a-v1", "percent": 50},
            {"tag": "v2", "revisionName": "a-v2", "percent": 50},
            {"tag": "latest", "latestRevision": True, "percent": 0},
        ],
        [],
    ),
    ("too little", [{"percent": 99}], [f"Traffic targets sum to 99, want 100: {T}"]),
    (
        "too much",
        [{"percent": 60}, {"revisionName": "b", "percent": 50}],
        [f"Traffic targets sum to 110, want 100: {T}"],
    ),
    ("no percents", [{"tag": "a"}], [f"Traffic targets sum to 0, want 100: {T}"]),
    (
        "out of bounds",
        [{"percent": 101}, {"percent": -1, "tag": "a"}],
        [f"expected 0 <= -1 <= 100: {T}[1].percent", f"expected 0 <= 101 <= 100: {T}[0].percent"],
    ),
    (
        "a tag twice",
        [{"percent": 50, "tag": "a"}, {"percent": 50, "tag": "a"}],
        [f'Multiple definitions for "a": {T}[0].tag, {T}[1].tag'],
    ),
    (
        "a tag that is no label",
        [{"percent": 100, "tag": "foo.bar"}],
        [f"invalid value: not a DNS 1035 label: [{dns_1035_problems('a.b')[0]}]: {T}[0].tag"],
    ),
    (
        "latest, but pinned",
        [{"percent": 100, "revisionName": "a", "latestRevision": True}],
        [f'may not set revisionName "a" when latestRevision is true: {T}[0].latestRevision'],
    ),
    (
        "not latest, but not pinned",
        [{"percent": 100, "latestRevision": False}],
        [f'may not set revisionName "" when latestRevision is false: {T}[0].latestRevision'],
    ),
    (
        "a configuration in a Service",
        [{"percent": 100, "configurationName": "a"}],
        [f"must not set the field(s): {T}[0].configurationName"],
    ),
    ("a url", [{"percent": 100, "tag": "a", "url": "http://a"}], [f"must not set the field(s): {T}[0].url"]),
]


@pytest.mark.parametrize(("targets", "problems"), [row[1:] for row in SERVICE], ids=[row[0] for row in SERVICE])
def test_traffic_of_a_service(targets: list[Json], problems: list[str]) -> None:
    assert _problems(*targets) == problems


ROUTE: list[tuple[str, list[Json], list[str]]] = [
    ("a configuration", [{"percent": 100, "configurationName": "a"}], []),
    ("a revision", [{"percent": 100, "revisionName": "a"}], []),
    (
        "neither",
        [{"percent": 100}],
        [f"expected exactly one, got neither: {T}[0].configurationName, {T}[0].revisionName"],
    ),
    (
        "both",
        [{"percent": 100, "configurationName": "a", "revisionName": "b"}],
        [f"expected exactly one, got both: {T}[0].configurationName, {T}[0].revisionName"],
    ),
    ("nothing", [], [f"Traffic targets sum to 0, want 100: {T}"]),
]


@pytest.mark.parametrize(("targets", "problems"), [row[1:] for row in ROUTE], ids=[row[0] for row in ROUTE])
def test_traffic_of_a_route(targets: list[Json], problems: list[str]) -> None:
    assert _problems(*targets, in_service=False) == problems


@pytest.mark.parametrize("name", ["revisionName", "configurationName"])
def test_names_in_traffic_are_checked(name: str) -> None:
    (problem,) = _problems({"percent": 100, name: "b@r"}, in_service=False)
    assert problem.startswith(f'invalid key name "b@r": {T}[0].{name}\n')


def test_a_service_without_traffic_sends_all_to_the_latest() -> None:
    (target,) = defaulted_traffic((), in_service=True)
    assert target.to_json() == LATEST


def test_a_route_without_traffic_gets_none() -> None:
    assert defaulted_traffic((), in_service=False) == ()


@given(traffic("hello"))
def test_defaulting_traffic_twice_changes_nothing(targets: list[Json]) -> None:
    once = defaulted_traffic(_targets(*targets), in_service=True)
    assert defaulted_traffic(once, in_service=True) == once
    assert all(target.percent is not None and target.latest_revision is not None for target in once)


@given(traffic("hello"))
def test_valid_traffic_is_not_refused(targets: list[Json]) -> None:
    assert _problems(*targets) == []


@given(percents(3), st.integers(-50, 50).filter(bool), st.integers(0, 2))
def test_percents_that_are_off_by_anything_are_refused(shares: list[int], off: int, at: int) -> None:
    shares[at] += off
    assert any("want 100" in text for text in _problems(*({"percent": percent} for percent in shares)))
