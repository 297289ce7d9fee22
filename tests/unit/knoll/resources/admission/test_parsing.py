import copy
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from knoll.resources.admission.parsing import parse, read
from knoll.resources.models.base import Resource
from knoll.resources.models.build import Build
from knoll.resources.models.revision import Revision
from knoll.resources.models.service import Service
from knoll.values.errors import InvalidResourceError
from knoll.values.json import Json
from tests.strategies import json_values, services


def _service(container: Json) -> Json:
    return {"spec": {"template": {"spec": {"containers": [container]}}}}


@pytest.mark.parametrize(
    ("body", "paths"),
    [
        ({"x": 1}, ["x"]),
        ({"metadata": {"x": 1}}, ["metadata.x"]),
        (_service({"foo": 1}), ["spec.template.spec.containers[0].foo"]),
        (_service({"container_concurrency": 1}), ["spec.template.spec.containers[0].container_concurrency"]),
        ({"spec": {"container_concurrency": 1}}, ["spec.container_concurrency"]),
        (_service({"env": [{"name": "a"}, {"nam": "b"}]}), ["spec.template.spec.containers[0].env[1].nam"]),
        (_service({"resources": {"limit": {}}}), ["spec.template.spec.containers[0].resources.limit"]),
        ({"spec": {"traffic": [{"percentage": 1}], "b": 2}}, ["spec.traffic[0].percentage", "spec.b"]),
        (
            {"status": {"conditions": [{"type": "Ready", "status": "True", "state": "x"}]}},
            ["status.conditions[0].state"],
        ),
        (_service({"lifecycle": {"preStop": {}}}), []),
    ],
)
def test_unknown_fields_are_named_and_dropped(body: Json, paths: list[str]) -> None:
    parsed, unknown = parse(Service, body)
    assert sorted(unknown) == sorted(paths)
    assert parse(Service, parsed.to_json())[1] == []


PROBLEMS: list[tuple[Json, str, str]] = [
    (_service({"image": 5}), "spec.template.spec.containers[0].image", "must be a string, not a number"),
    (_service({"ports": {}}), "spec.template.spec.containers[0].ports", "must be a list, not an object"),
    (_service({"ports": [7]}), "spec.template.spec.containers[0].ports[0]", "must be an object, not a number"),
    (_service({"env": [None]}), "spec.template.spec.containers[0].env[0]", "must be an object, not null"),
    (_service({"env": "A=b"}), "spec.template.spec.containers[0].env", "must be a list, not a string"),
    (
        _service({"env": [{"value": True}]}),
        "spec.template.spec.containers[0].env[0].value",
        "must be a string, not true or false",
    ),
    (
        _service({"resources": {"limits": {"cpu": "lots"}}}),
        "spec.template.spec.containers[0].resources.limits[cpu]",
        "must be a quantity such as 100m, 0.5, 2 or 350Mi, not 'lots'",
    ),
    (
        _service({"resources": {"limits": {"cpu": True}}}),
        "spec.template.spec.containers[0].resources.limits[cpu]",
        "must be a quantity such as 100m, 2 or 1Gi",
    ),
    (
        _service({"readinessProbe": {"httpGet": {"port": 1.5}}}),
        "spec.template.spec.containers[0].readinessProbe.httpGet.port",
        "must be a whole number or a string",
    ),
    ({"spec": []}, "spec", "must be an object, not a list"),
    ({"metadata": "x"}, "metadata", "must be an object, not a string"),
    ({"metadata": {"labels": {"a.b/c": 1}}}, "metadata.labels[a.b/c]", "must be a string, not a number"),
    ({"metadata": {"labels": ["a"]}}, "metadata.labels", "must be an object, not a list"),
    ({"spec": {"traffic": [{"percent": "50"}]}}, "spec.traffic[0].percent", "must be a whole number, not a string"),
    ({"spec": {"traffic": [{"percent": 50.5}]}}, "spec.traffic[0].percent", "must be a whole number, not a number"),
    (
        {"spec": {"traffic": [{"percent": True}]}},
        "spec.traffic[0].percent",
        "must be a whole number, not true or false",
    ),
    (
        {"spec": {"traffic": [{"percent": 2**70}]}},
        "spec.traffic[0].percent",
        f"must be between {-(2**63)} and {2**63 - 1}",
    ),
    (
        {"spec": {"traffic": [{"latestRevision": "yes"}]}},
        "spec.traffic[0].latestRevision",
        "must be true or false, not a string",
    ),
    ({"status": {"conditions": [{"status": "True"}]}}, "status.conditions[0].type", ""),
]


@pytest.mark.parametrize(("body", "path", "details"), PROBLEMS, ids=[path for _, path, _ in PROBLEMS])
def test_a_value_of_the_wrong_type_is_explained_where_it_is(body: Json, path: str, details: str) -> None:
    with pytest.raises(InvalidResourceError) as caught:
        parse(Service, body)
    (cause,) = caught.value.causes
    assert cause.paths == (path,)
    assert cause.details == details


def test_a_value_with_a_brace_is_reported_like_any_other() -> None:
    parsed, _, problems = read(Service, _service({"resources": {"limits": {"": "{"}}}))
    assert parsed is None
    assert len(problems) == 1


def test_all_values_of_wrong_types_are_named_at_once() -> None:
    body = {"metadata": {"name": 1}, "spec": {"traffic": 5, "x": 1}}
    parsed, unknown, problems = read(Service, body)
    assert parsed is None
    assert unknown == ["spec.x"]
    assert sorted(item.paths[0] for item in problems) == ["metadata.name", "spec.traffic"]


def test_what_was_given_is_left_alone() -> None:
    body = {"metadata": {"creationTimestamp": None, "labels": {"a": "b"}}, "x": [None, {"y": None}]}
    before = copy.deepcopy(body)
    parse(Service, body)
    assert body == before


@given(services())
def test_objects_round_trip(body: Json) -> None:
    once = parse(Service, body)[0].to_json()
    parsed, unknown = parse(Service, once)
    assert parsed.to_json() == once
    assert unknown == []


def _places(value: Any, path: str, closed: bool) -> list[tuple[Json, str]]:
    """Every object in a value to which an unknown field could be added, with its path."""
    if isinstance(value, list):
        return [place for at, item in enumerate(value) for place in _places(item, f"{path}[{at}]", closed)]
    if not isinstance(value, dict):
        return []
    places = [(value, path)] if closed else []
    for key, item in value.items():
        opened = key in ("labels", "annotations", "limits", "requests")
        places += _places(item, f"{path}.{key}" if path else key, not opened)
    return places


@given(services(), st.data())
def test_an_unknown_field_is_found_wherever_it_is(body: Json, data: st.DataObject) -> None:
    place, path = data.draw(st.sampled_from(_places(body, "", True)))
    place["noSuchField"] = data.draw(json_values().filter(lambda value: value is not None))
    parsed, unknown = parse(Service, body)
    assert unknown == [f"{path}.noSuchField" if path else "noSuchField"]
    del place["noSuchField"]
    assert parsed == parse(Service, body)[0]


@pytest.mark.parametrize("model", [Service, Revision, Build])
@given(body=st.dictionaries(st.sampled_from(["spec", "metadata", "status", "kind", "x"]), json_values()))
def test_no_json_breaks_the_parser(model: type[Resource], body: Json) -> None:
    parsed, _, problems = read(model, body)
    assert (parsed is None) == bool(problems)
    for problem in problems:
        assert problem.paths[0]
        assert str(problem)


@given(services(), st.data())
def test_a_wrong_value_anywhere_gives_an_error_or_an_object_and_nothing_else(body: Json, data: st.DataObject) -> None:
    place, _ = data.draw(st.sampled_from([parsed for parsed in _places(body, "", True) if parsed[0]]))
    place[data.draw(st.sampled_from(sorted(place)))] = data.draw(json_values())
    parsed, _, problems = read(Service, body)
    assert (parsed is None) == bool(problems)
