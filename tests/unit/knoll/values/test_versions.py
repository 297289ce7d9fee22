"""Which versions may run on the machines of one cluster."""

import pytest

from knoll.values import versions


@pytest.mark.parametrize(
    ("own", "other", "allowed"),
    [
        ("v1.4.0", "v1.4.9", True),
        ("v1.4.0", "v1.5.2", True),
        ("v1.5.0", "v1.4.0", True),
        ("v1.4.0", "v1.6.0", False),
        ("v1.9.0", "v2.0.0", False),
        ("v1.4.0", "", False),
        ("1.4.0", "v1.4.0", True),
        ("", "", True),
    ],
)
def test_machines_may_differ_by_one_minor_version(own: str, other: str, allowed: bool) -> None:
    assert versions.are_compatible(own, other) is allowed
    assert bool(versions.problem(own, {"n2": other})) is not allowed


def test_three_minor_versions_are_one_too_many() -> None:
    assert versions.are_compatible("v1.4.0", "v1.5.0", "v1.5.1")
    assert not versions.are_compatible("v1.4.0", "v1.5.0", "v1.6.0")
    assert versions.are_compatible()


def test_the_reason_names_the_machines_and_what_to_do() -> None:
    reason = versions.problem("v1.6.0", {"n1": "v1.4.0", "n2": "v1.5.0", "n3": ""})
    assert "this machine has the version v1.6.0, but n1 runs v1.4.0, n3 runs an unknown version;" in reason
    assert "n2" not in reason
    assert "one minor version at a time" in reason


@pytest.mark.parametrize(
    ("version", "offered", "accepted"),
    [
        ("0.2.0", "knoll-redis/0.2", {"knoll-redis/0.1", "knoll-redis/0.2", "knoll-redis/0.3"}),
        ("v1.0.3", "knoll-redis/1.0", {"knoll-redis/1.0", "knoll-redis/1.1"}),
    ],
)
def test_the_protocol_names_the_minor_version(version: str, offered: str, accepted: set[str]) -> None:
    assert versions.protocol("knoll-redis", version) == offered
    assert set(versions.accepted_protocols("knoll-redis", version)) == accepted
    assert versions.accepted_protocols("knoll-redis", version)[0] == offered
