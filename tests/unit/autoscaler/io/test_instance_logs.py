"""What Kubernetes' parameters of a Pod's log mean here."""

import pytest

from autoscaler.io.instance_logs import Wanted, container_of, wanted
from autoscaler.runtime.protocol import ContainerState, Instance
from knoll.values.errors import BadRequestError

NOW = 1_000_000.0


@pytest.mark.parametrize(
    ("asked", "want"),
    [
        ({}, Wanted()),
        ({"container": "a", "follow": "true", "timestamps": "1"}, Wanted("a", follow=True, timestamps=True)),
        ({"follow": "false", "previous": "false"}, Wanted()),
        ({"tailLines": "0"}, Wanted(tail=0)),
        ({"sinceSeconds": "10"}, Wanted(since=NOW - 10)),
        ({"sinceTime": "1970-01-01T00:01:40Z"}, Wanted(since=100.0)),
        ({"limitBytes": "7"}, Wanted(limit_bytes=7)),
    ],
    ids=str,
)
def test_parameters_are_read(asked: dict[str, str], want: Wanted) -> None:
    assert wanted(asked, NOW) == want


@pytest.mark.parametrize(
    ("asked", "said"),
    [
        ({"tailLines": "-1"}, "tailLines: '-1' is not a whole number from 0"),
        ({"sinceSeconds": "0"}, "sinceSeconds: '0' is not a whole number from 1"),
        ({"limitBytes": "many"}, "limitBytes: 'many' is not a whole number from 1"),
        ({"follow": "perhaps"}, "follow: 'perhaps' is neither true nor false"),
        ({"sinceTime": "noon"}, "sinceTime: 'noon' is not a time"),
        ({"sinceTime": "1970-01-01T00:01:40Z", "sinceSeconds": "1"}, "at most one of"),
        ({"previous": "true"}, "is not kept"),
    ],
    ids=str,
)
def test_what_cannot_be_meant_is_refused(asked: dict[str, str], said: str) -> None:
    with pytest.raises(BadRequestError, match=said):
        wanted(asked, NOW)


def instance(*containers: str) -> Instance:
    states = tuple(ContainerState(name, running=True) for name in containers)
    return Instance("hello-1", "default/hello", "u", "10.0.0.2", 8080, "running", states, {}, NOW, 300.0)


def test_the_only_container_need_not_be_named() -> None:
    assert container_of(instance("one"), "") == "one"
    assert container_of(instance("one", "two"), "two") == "two"


@pytest.mark.parametrize(
    ("containers", "named", "said"),
    [
        (("one", "two"), "", r"choose one of: \[one two\]"),
        (("one",), "two", "container two is not valid for pod hello-1"),
        ((), "one", "is waiting to start"),
    ],
    ids=str,
)
def test_a_container_that_cannot_be_told_is_refused(containers: tuple[str, ...], named: str, said: str) -> None:
    with pytest.raises(BadRequestError, match=said):
        container_of(instance(*containers), named)
