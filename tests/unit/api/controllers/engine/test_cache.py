"""The cache accepts writes and watch events in any order and stays correct."""

from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from api.controllers.engine.cache import Cache
from knoll.store.protocol import PackedListing, PackedObject
from knoll.store.rules import encode
from knoll.values import kinds
from knoll.values.json import Json

ROUTE, REVISION = kinds.ROUTE.id, kinds.REVISION.id


def body(name: str, version: int, **parts: Any) -> Json:
    meta = {"name": name, "namespace": "default", "resourceVersion": str(version), **parts.pop("meta", {})}
    return {"metadata": meta, "spec": parts}


def test_an_older_body_does_not_replace_a_newer_one() -> None:
    cache = Cache()
    assert cache.put(ROUTE, body("a", 5)) is not None
    assert cache.put(ROUTE, body("a", 4)) is None
    assert cache.put(ROUTE, body("a", 5)) is None
    cached = cache.get(ROUTE, "default", "a")
    assert cached is not None
    assert cached["metadata"]["resourceVersion"] == "5"


def test_a_late_event_does_not_bring_a_removed_object_back() -> None:
    cache = Cache()
    cache.put(ROUTE, body("a", 5))
    cache.remove(ROUTE, "default", "a", 7)
    assert cache.put(ROUTE, body("a", 6)) is None
    assert cache.get(ROUTE, "default", "a") is None
    assert cache.put(ROUTE, body("a", 8)) is not None


def test_an_old_removal_does_not_take_a_newer_object() -> None:
    cache = Cache()
    cache.put(ROUTE, body("a", 9))
    assert cache.remove(ROUTE, "default", "a", 7) is None
    assert cache.get(ROUTE, "default", "a") is not None


def test_a_forced_read_replaces_a_newer_version() -> None:
    cache = Cache()
    cache.put(ROUTE, body("a", 9))
    assert cache.put(ROUTE, body("a", 3), force=True) is not None


def test_a_forced_read_restores_a_deleted_object() -> None:
    cache = Cache()
    cache.put(ROUTE, body("a", 5))
    cache.remove(ROUTE, "default", "a", 5)
    assert cache.put(ROUTE, body("a", 5)) is None
    assert cache.put(ROUTE, body("a", 5), force=True) is not None
    assert cache.get(ROUTE, "default", "a") is not None


def test_a_listing_replaces_everything_and_returns_the_differences() -> None:
    cache = Cache()
    for name in "abc":
        cache.put(ROUTE, body(name, 1))
    cache.put(ROUTE, body("new", 12))
    there = (("a", 1), ("b", 4), ("d", 6))
    listing = PackedListing([PackedObject(f"default/{name}", at, encode(body(name, at))) for name, at in there], 10)
    seen = list(cache.replace(ROUTE, listing))
    assert {(difference.key[2], difference.after is None) for difference in seen} == {
        ("b", False), ("c", True), ("d", False)
    }  # fmt: skip
    assert cache.get(ROUTE, "default", "new") is not None, "written after the listing"


def test_the_indexes_follow_the_objects() -> None:
    cache = Cache()
    owner = {"metadata": {"uid": "u", "name": "hello", "namespace": "default"}}
    mine = {"ownerReferences": [{"uid": "u", "controller": True, "kind": "Configuration", "name": "hello"}]}
    cache.put(ROUTE, body("r", 1, traffic=[{"configurationName": "c"}, {"revisionName": "x"}]))
    cache.put(REVISION, body("x", 2, meta={**mine, "annotations": {"serving.knative.dev/routes": "r,s"}}))
    assert cache.routes_naming("default", "configuration", "c") == {"r"}
    assert cache.routes_naming("default", "revision", "x") == {"r"}
    assert cache.routes_naming("other", "revision", "x") == frozenset()
    assert cache.revisions_of_route("default", "s") == {"x"}
    assert [cached["metadata"]["name"] for cached in cache.owned(owner, REVISION)] == ["x"]
    cache.put(ROUTE, body("r", 3, traffic=[{"revisionName": "y"}]))
    cache.remove(REVISION, "default", "x", 4)
    assert cache.routes_naming("default", "configuration", "c") == frozenset()
    assert cache.routes_naming("default", "revision", "y") == {"r"}
    assert cache.revisions_of_route("default", "r") == frozenset()
    assert cache.owned(owner, REVISION) == []


@given(st.permutations(range(1, 9)), st.integers(1, 9))
def test_any_order_of_arrival_ends_at_the_newest(order: list[int], removed_at: int) -> None:
    cache = Cache()
    for version in order:
        if version == removed_at:
            cache.remove(ROUTE, "default", "a", version)
        else:
            cache.put(ROUTE, body("a", version))
    cached = cache.get(ROUTE, "default", "a")
    if removed_at == 8:
        assert cached is None
    else:
        assert cached is not None
        assert cached["metadata"]["resourceVersion"] == "8"


def test_owner_references_across_namespaces_are_ignored() -> None:
    cache = Cache()
    owner = body("a", 1, meta={"uid": "u"})
    reference = {"kind": "Configuration", "apiVersion": "serving.knative.dev/v1", "name": "a", "uid": "u"}
    references = [{**reference, "controller": True}]
    cache.put(REVISION, body("own", 2, meta={"uid": "1", "ownerReferences": references}))
    cache.put(REVISION, body("foreign", 3, meta={"uid": "2", "namespace": "other", "ownerReferences": references}))
    assert [cached["metadata"]["name"] for cached in cache.owned(owner, REVISION)] == ["own"]


def test_objects_that_are_about_to_be_created_are_read_only_while_they_are_included() -> None:
    cache = Cache()
    cache.put(REVISION, body("there", 1))
    with cache.including() as include:
        include((REVISION, "default", "new"), body("new", 0))
        assert cache.get(REVISION, "default", "new") == body("new", 0)
        assert cache.get(REVISION, "default", "there") == body("there", 1)
    assert cache.get(REVISION, "default", "new") is None
    assert cache.names(REVISION) == [("default", "there")]
