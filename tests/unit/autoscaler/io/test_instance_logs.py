"""Which container's log is requested."""

import pytest

from autoscaler.io.instance_logs import container_of
from autoscaler.runtime.model import ContainerState, Instance
from knoll.values.errors import BadRequestError

NOW = 1_000_000.0


def instance(*containers: str) -> Instance:
    states = tuple(ContainerState(name, running=True) for name in containers)
    return Instance("hello-1", "default/hello", "u", "10.0.0.2", 8080, "running", states, {}, NOW, 300.0)


def test_the_only_container_need_not_be_named() -> None:
    assert container_of(instance("one"), "") == "one"
    assert container_of(instance("one", "two"), "two") == "two"


@pytest.mark.parametrize(
    ("containers", "named", "message"),
    [
        (("one", "two"), "", r"choose one of: \[one two\]"),
        (("one",), "two", "container two is not valid for pod hello-1"),
        ((), "one", "is waiting to start"),
    ],
    ids=str,
)
def test_an_ambiguous_container_is_refused(containers: tuple[str, ...], named: str, message: str) -> None:
    with pytest.raises(BadRequestError, match=message):
        container_of(instance(*containers), named)
