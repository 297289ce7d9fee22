"""What is to be done about one object, given its owners and its dependents."""

import pytest

from knoll.store.owner_gc import DeleteObject, UpdateObject, decide
from knoll.values.json import Json

NOW = "2026-01-02T03:04:05Z"


def thing(uid: str, *owners: str, blocks: bool = True, finalizers: tuple[str, ...] = (), deleted: bool = False) -> Json:
    meta: Json = {"uid": uid, "name": uid}
    if owners:
        meta["ownerReferences"] = [{"uid": owner, "blockOwnerDeletion": blocks} for owner in owners]
    if finalizers:
        meta["finalizers"] = list(finalizers)
    if deleted:
        meta["deletionTimestamp"] = NOW
    return {"metadata": meta}


def by_uid(*owners: Json) -> dict[str, Json]:
    return {owner["metadata"]["uid"]: owner for owner in owners}


ALIVE = thing("o")
GOING = thing("o", finalizers=("foregroundDeletion",), deleted=True)
GOING_LATER = thing("o", finalizers=("other",), deleted=True)


@pytest.mark.parametrize(
    ("body", "owners"),
    [
        pytest.param(thing("x"), [], id="without owners"),
        pytest.param(thing("x", "o"), [ALIVE], id="its owner lives"),
        pytest.param(thing("x", "o"), [GOING_LATER], id="its owner is held by another finalizer"),
        pytest.param(thing("x", "o", finalizers=("f",), deleted=True), [], id="it is being deleted already"),
    ],
)
def test_an_object_without_a_reason_to_delete_it_stays(body: Json, owners: list[Json]) -> None:
    assert decide(body, by_uid(*owners), []) == []


def test_an_object_whose_owners_are_all_deleted_is_deleted() -> None:
    assert decide(thing("x", "o", "p"), {}, [thing("y", "x")]) == [DeleteObject(thing("x", "o", "p"))]


def test_an_object_with_one_owner_left_drops_the_others() -> None:
    assert decide(thing("x", "o", "p"), by_uid(ALIVE), []) == [UpdateObject(thing("x", "o"))]
    assert decide(thing("x", "p", "o"), by_uid(GOING, thing("p")), []) == [UpdateObject(thing("x", "p"))]


def test_dependents_of_an_owner_that_waits_for_them_are_deleted() -> None:
    assert decide(thing("x", "o"), by_uid(GOING), []) == [DeleteObject(thing("x", "o"))]


def test_those_with_dependents_of_their_own_wait_in_turn() -> None:
    assert decide(thing("x", "o"), by_uid(GOING), [thing("y", "x")]) == [DeleteObject(thing("x", "o"), foreground=True)]


def test_owners_in_a_circle_do_not_wait_for_each_other() -> None:
    other = thing("o", "x", finalizers=("foregroundDeletion",), deleted=True)
    assert decide(thing("x", "o"), by_uid(other), [other]) == [UpdateObject(thing("x", "o", blocks=False))]
    open_end = thing("x", "o", blocks=False)
    assert decide(open_end, by_uid(other), [other]) == [DeleteObject(open_end, foreground=True)]


def test_an_owner_is_deleted_once_nothing_blocks_it() -> None:
    assert decide(GOING, {}, [thing("x", "o")]) == []
    done = thing("o", deleted=True)
    assert decide(GOING, {}, [thing("x", "o", blocks=False)]) == [UpdateObject(done)]
    assert decide(GOING, {}, []) == [UpdateObject(done)]


def test_other_finalizers_stay() -> None:
    owner = thing("o", finalizers=("f", "foregroundDeletion"), deleted=True)
    assert decide(owner, {}, []) == [UpdateObject(thing("o", finalizers=("f",), deleted=True))]


def test_an_orphaning_owner_lets_go_of_its_dependents_and_then_goes() -> None:
    owner = thing("o", finalizers=("orphan",), deleted=True)
    assert decide(owner, {}, [thing("x", "o"), thing("y", "o", "p")]) == [
        UpdateObject(thing("x")),
        UpdateObject(thing("y", "p")),
    ]
    assert decide(owner, {}, []) == [UpdateObject(thing("o", deleted=True))]
