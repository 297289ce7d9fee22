"""Both stores against a short model of a store, under any mix of writes."""

import asyncio
from collections.abc import Awaitable
from typing import Any, TypeVar

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule, run_state_machine_as_test

from knoll.redis.client import connect
from knoll.store.redis_store import RedisStore
from knoll.values.errors import AlreadyExistsError, ConflictError, KnollError, NotFoundError
from knoll.values.json import Json
from tests.component.knoll.conftest import take
from tests.doubles.memory_store import MemoryStore

T = TypeVar("T")
KIND = "configmaps"
names = st.sampled_from(["x", "y", "z"])
finalizers = st.sampled_from([[], ["f"]])
owners = st.lists(st.sampled_from(["u", "v"]), unique=True)
HISTORY = 8


class StoreMachine(RuleBasedStateMachine):
    """The model: objects by name without their versions, and the list of events."""

    url: str

    def __init__(self) -> None:
        super().__init__()
        self.runner = asyncio.Runner()
        self.redis = self.runner.run(self._connect()) if self.url else None
        self.store = MemoryStore(history=HISTORY) if self.redis is None else RedisStore(self.redis, history=HISTORY)
        self.objects: dict[str, tuple[int, Json]] = {}
        self.events: list[tuple[str, str]] = []
        self.begin = self.run(self.store.list(KIND)).version

    async def _connect(self) -> Any:
        redis = connect(self.url)
        await redis.execute("FLUSHALL")
        return redis

    def run(self, coroutine: Awaitable[T]) -> T:
        async def wait() -> T:
            return await coroutine

        return self.runner.run(wait())

    def refused(self, coroutine: Awaitable[Any]) -> type[KnollError] | None:
        try:
            self.run(coroutine)
        except KnollError as error:
            return type(error)
        return None

    @property
    def version(self) -> int:
        return self.begin + len(self.events)

    def happened(self, type_: str, name: str, body: Json) -> None:
        self.events.append((type_, name))
        if type_ == "DELETED":
            del self.objects[name]
        else:
            self.objects[name] = (self.version, body)

    @rule(name=names, finalizers=finalizers, owners=owners)
    def create(self, name: str, finalizers: list[str], owners: list[str]) -> None:
        body = make(name, 0, finalizers, owners)
        refused = self.refused(self.store.create(KIND, body))
        assert refused == (AlreadyExistsError if name in self.objects else None)
        if refused is None:
            self.happened("ADDED", name, body)

    @rule(name=names, value=st.integers(0, 2), finalizers=finalizers, owners=owners, behind=st.integers(0, 2))
    def update(self, name: str, value: int, finalizers: list[str], owners: list[str], behind: int) -> None:
        """`behind`: 0 is without a version, 1 at the stored one, 2 at an older one."""
        at, old = self.objects.get(name, (self.begin, make(name, 0, [], [])))
        body = make(name, value, finalizers, owners)
        if deleted := old["metadata"].get("deletionTimestamp"):
            body["metadata"].update(deletionTimestamp=deleted, deletionGracePeriodSeconds=0)
        sent = {**body, "metadata": {**body["metadata"]}}
        if behind:
            sent["metadata"]["resourceVersion"] = str(at + 1 - behind)
        refused = self.refused(self.store.update(KIND, sent))
        if name not in self.objects:
            assert refused is NotFoundError
        elif behind == 2:
            assert refused is ConflictError
        elif deleted and not finalizers:
            self.happened("DELETED", name, body)
        elif body != old:
            self.happened("MODIFIED", name, body)

    @rule(name=names, right=st.booleans())
    def delete(self, name: str, right: bool) -> None:
        at, old = self.objects.get(name, (0, {}))
        refused = self.refused(self.store.delete(KIND, "a", name, version=str(at if right else at + 1)))
        if not old:
            assert refused is NotFoundError
        elif not right:
            assert refused is ConflictError
        elif not old["metadata"].get("finalizers"):
            self.happened("DELETED", name, old)
        elif not old["metadata"].get("deletionTimestamp"):
            stamp = self.run(self.store.get(KIND, "a", name))["metadata"]["deletionTimestamp"]
            meta = {**old["metadata"], "deletionTimestamp": stamp, "deletionGracePeriodSeconds": 0}
            self.happened("MODIFIED", name, {**old, "metadata": meta})

    @precondition(lambda self: self.events)
    @rule(back=st.integers(1, HISTORY))
    def watch_from(self, back: int) -> None:
        back = min(back, len(self.events))
        events = self.run(take(self.store.watch(self.version - back, {KIND}), back))
        assert [(event.type, event.body["metadata"]["name"]) for event in events] == self.events[-back:]
        assert [event.version for event in events] == list(range(self.version - back + 1, self.version + 1))
        assert all((event.before is None) == (event.type == "ADDED") for event in events)

    @invariant()
    def it_lists_what_the_model_has(self) -> None:
        listing = self.run(self.store.list(KIND))
        expected = [
            {**body, "metadata": {**body["metadata"], "resourceVersion": str(at)}}
            for _, (at, body) in sorted(self.objects.items())
        ]
        assert listing.items == expected
        assert listing.version == self.version

    @invariant()
    def it_knows_the_owners(self) -> None:
        for uid in ("u", "v"):
            owned_names = [name for _, _, name in self.run(self.store.owned_by(uid))]
            owned = [
                name
                for name, (_, body) in sorted(self.objects.items())
                if uid in [ref["uid"] for ref in body["metadata"]["ownerReferences"]]
            ]
            assert owned_names == owned

    def teardown(self) -> None:
        self.run(self.store.close())
        if self.redis is not None:
            self.run(self.redis.aclose())
        self.runner.close()


def make(name: str, value: int, finalizers: list[str], owners: list[str]) -> Json:
    references = [{"uid": uid} for uid in owners]
    meta = {"namespace": "a", "name": name, "finalizers": finalizers, "ownerReferences": references}
    return {"metadata": meta, "data": {"k": value}}


def test_any_mix_of_writes_leaves_what_the_model_says(form: str, request: pytest.FixtureRequest) -> None:
    address = request.getfixturevalue("redis_url") if form == "redis" else ""

    class Machine(StoreMachine):
        url = address

    run_state_machine_as_test(Machine, settings=settings(stateful_step_count=30))
