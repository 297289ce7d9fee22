"""The managers of a cluster: their slots, and which of them may be removed."""

import pytest

from knoll.cluster import managers
from knoll.cluster.managers import Manager
from knoll.cluster.members import KEY_ANNOTATION, account_of
from knoll.values.errors import ConflictError
from knoll.values.json import Json

THREE = [Manager(1, "n1", "10.0.0.1"), Manager(2, "n2", "10.0.0.2"), Manager(3, "n3", "10.0.0.3")]


def account(name: str, **annotations: str) -> Json:
    return {"metadata": {"name": account_of(name), "annotations": {KEY_ANNOTATION: "k", **annotations}}}


def test_managers_are_the_members_with_a_slot_in_the_order_of_slots() -> None:
    accounts = [
        account("n3", **managers.annotations_of(2, "10.0.0.3")),
        account("worker"),
        account("n1", **managers.annotations_of(1, "fd00::1")),
        account("odd", **{managers.SLOT_ANNOTATION: "x", managers.ADDRESS_ANNOTATION: "10.0.0.9"}),
    ]
    assert managers.managers_of(accounts) == [Manager(1, "n1", "fd00::1"), Manager(2, "n3", "10.0.0.3")]


def test_a_new_manager_gets_the_smallest_free_slot() -> None:
    assert managers.free_slot([]) == 1
    assert managers.free_slot([THREE[0], THREE[2]]) == 2
    with pytest.raises(ConflictError, match="without --manager"):
        managers.free_slot([Manager(slot, f"n{slot}", "10.0.0.1") for slot in range(1, managers.SLOTS + 1)])


def test_ports_differ_by_the_slot() -> None:
    assert (THREE[1].redis_port, THREE[1].sentinel_port) == (6382, 26382)
    address = managers.sentinels(THREE, "127.0.0.1")
    assert [str(each) for each in address.sentinels] == ["127.0.0.1:26381", "127.0.0.1:26382", "127.0.0.1:26383"]
    assert address.sentinels[0].login() == ("AUTH", "health", "health")


def test_a_list_survives_the_file() -> None:
    assert managers.decode(managers.encode(THREE[::-1])) == THREE


@pytest.mark.parametrize("data", [b"", b"{}", b'[{"slot": "1"}]'])
def test_an_invalid_list_is_refused(data: bytes) -> None:
    with pytest.raises(ValueError, match="not a list of managers"):
        managers.decode(data)


@pytest.mark.parametrize("text", ["", "n1", "n1/", "/10.0.0.1", "n1/host"])
def test_an_invalid_first_manager_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match="NODE/ADDRESS"):
        managers.first(text)


def test_the_first_manager_has_slot_one() -> None:
    assert managers.first("n1/fd00::1") == Manager(1, "n1", "fd00::1")


@pytest.mark.parametrize(
    ("present", "ready", "name", "problem"),
    [
        (3, "n1 n2 n3", "n1", ""),
        (3, "n2 n3", "n1", ""),
        (3, "n1 n3", "n3", "1 of the 2 remaining managers would respond (n1), and 2 are needed: start n2 first"),
        (3, "n2", "n2", "0 of the 2 remaining managers would respond (none)"),
        (3, "n1 n2 n3", "worker", ""),
        (2, "n1 n2", "n1", "n2 would be the only manager"),
        (1, "n1", "n1", "n1 is the only manager"),
    ],
)
def test_a_removal_keeps_a_majority(present: int, ready: str, name: str, problem: str) -> None:
    reason = managers.quorum_problem(name, THREE[:present], dict.fromkeys(ready.split(), True))
    assert problem in reason
    assert bool(reason) is bool(problem)
