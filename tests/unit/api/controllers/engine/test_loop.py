"""The loop on stores in memory: failures, activators that die, and what is waited for."""

import asyncio
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager

import pytest
from prometheus_client import CollectorRegistry

from api.controllers.engine import acknowledgements
from api.controllers.engine.acknowledgements import Acknowledgements
from api.controllers.engine.loop import Controllers
from api.controllers.engine.metrics import ControllerMetrics
from api.controllers.engine.tables import Tables
from api.controllers.reconciler import objects
from knoll.messages import builds, routing, scale
from knoll.messages.builds import BuildProgress, Resolution, Unresolved
from knoll.messages.routing import RouteEntry
from knoll.messages.scale import ScaleStatus
from knoll.store.protocol import ObjectWrite
from knoll.values import kinds
from knoll.values.errors import KnollError, NotFoundError, StoreUnavailableError
from knoll.values.json import Json
from tests.doubles.memory_store import MemoryStore
from tests.doubles.memory_tables import MemoryTable
from tests.unit.api.controllers.simulation import NOW
from tests.waiting import eventually

ENTRY = RouteEntry(hosts={}, revisions={})


class Builder(MemoryTable[Unresolved]):
    """The table that the builder follows: away for as long as the test says."""

    def __init__(self) -> None:
        super().__init__(builds.UNRESOLVED, Unresolved)
        self.away = False
        self.asked: list[str] = []

    async def put(self, field: str, value: Unresolved) -> int:
        if self.away:
            raise StoreUnavailableError("Redis does not respond")
        self.asked.append(value.name)
        return await super().put(field, value)


def tables(builder: Builder) -> Tables:
    return Tables(
        MemoryTable(routing.ROUTING, RouteEntry),
        builder,
        MemoryTable(builds.RESOLUTIONS, Resolution),
        MemoryTable(builds.BUILDS, BuildProgress),
        MemoryTable(scale.SCALE, ScaleStatus),
    )


@asynccontextmanager
async def running(
    store: MemoryStore, builder: Builder, controllers: Controllers | None = None
) -> AsyncIterator[Controllers]:
    if controllers is None:
        controllers = Controllers(store, tables(builder), None, clock=lambda: NOW)  # type: ignore[arg-type]
    task = asyncio.create_task(controllers.run())
    try:
        yield controllers
    finally:
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)


def a_configuration(name: str = "app") -> Json:
    template = {"spec": {"containers": [{"name": "c", "image": "i"}]}}
    body = {
        "apiVersion": kinds.CONFIGURATION.api_version, "kind": "Configuration",
        "metadata": {"name": name, "namespace": "default"}, "spec": {"template": template},
    }  # fmt: skip
    return objects.with_identity(body, NOW)


async def test_a_failing_reconciliation_is_reported_and_repeated_until_it_works() -> None:
    store, builder = MemoryStore(), Builder()
    builder.away = True
    async with running(store, builder):
        await store.create(kinds.CONFIGURATION.id, a_configuration())

        async def reason() -> str:
            revision = await store.get(kinds.REVISION.id, "default", "app-00001")
            return str((objects.condition(revision) or {}).get("reason"))

        async def is_there() -> bool:
            return bool((await store.list(kinds.REVISION.id)).items)

        await eventually(is_there)

        async def failed() -> bool:
            return await reason() == "NewObservedGenFailure"

        await eventually(failed)
        builder.away = False

        async def went_on() -> bool:
            return await reason() == "ResolvingDigests"

        await eventually(went_on)
        assert builder.asked == ["app-00001"]


async def test_many_objects_are_all_reconciled() -> None:
    store, builder = MemoryStore(), Builder()
    for number in range(100):
        await store.create(kinds.CONFIGURATION.id, a_configuration(f"app-{number}"))
    async with running(store, builder) as controllers:
        await eventually(lambda: len(builder.asked) == 100)
        await eventually(lambda: controllers.queue.idle)
        assert len(set(builder.asked)) == 100


async def test_a_leader_that_returns_looks_only_at_what_changed() -> None:
    store, builder, registry = MemoryStore(), Builder(), CollectorRegistry()
    for number in range(30):
        await store.create(kinds.CONFIGURATION.id, a_configuration(f"app-{number}"))
    metrics = ControllerMetrics(registry)
    first = Controllers(store, tables(builder), None, clock=lambda: NOW, metrics=metrics)  # type: ignore[arg-type]

    def reconciled() -> float:
        samples = [sample for metric in registry.collect() for sample in metric.samples]
        return sum(sample.value for sample in samples if sample.name.endswith("_total"))

    async with running(store, builder, first) as controllers:
        await eventually(lambda: len(builder.asked) == 30)
        await eventually(lambda: controllers.queue.idle)
    before = reconciled()
    await store.create(kinds.CONFIGURATION.id, a_configuration("late"))
    async with running(store, builder, first) as controllers:
        await eventually(lambda: "late-00001" in builder.asked)
        await eventually(lambda: controllers.queue.idle)
    # Each unanswered look-up has a timer, which is looked at again.
    revisions = 30
    assert reconciled() - before <= revisions + 10, "Configurations that did not change were reconciled"
    assert builder.asked.count("app-0-00001") == 1


async def test_what_was_interrupted_is_done_in_the_next_term() -> None:
    store, builder = MemoryStore(), Builder()
    builder.away = True
    await store.create(kinds.CONFIGURATION.id, a_configuration())
    first = Controllers(store, tables(builder), None, clock=lambda: NOW)  # type: ignore[arg-type]
    async with running(store, builder, first):

        async def is_there() -> bool:
            return bool((await store.list(kinds.REVISION.id)).items)

        await eventually(is_there)
    builder.away = False
    async with running(store, builder, first):
        await eventually(lambda: builder.asked == ["app-00001"])


class Reached:
    """What was told to be acknowledged."""

    def __init__(self) -> None:
        self.calls: list[tuple[str, int]] = []

    def __call__(self, path: str, version: int) -> None:
        self.calls.append((path, version))


async def test_an_entry_is_reached_when_all_living_activators_have_it() -> None:
    table, reached = MemoryTable(routing.ROUTING, RouteEntry), Reached()
    waiting = Acknowledgements(table, reached)
    version = await table.put("default/a", ENTRY)
    waiting.expect("default/a", version)
    await waiting.check()
    assert reached.calls == [], "there is no activator"
    await table.acknowledge("one", version)
    await table.acknowledge("two", version - 1)
    await waiting.check()
    assert reached.calls == []
    await table.acknowledge("two", version)
    await waiting.check()
    await waiting.check()
    assert reached.calls == [("default/a", version)], "told once"
    assert waiting.living == 2


async def test_one_that_leaves_is_not_waited_for(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(acknowledgements, "CHECK_SECONDS", 0.01)
    table, reached = MemoryTable(routing.ROUTING, RouteEntry), Reached()
    waiting = Acknowledgements(table, reached)
    version = await table.put("default/a", ENTRY)
    await table.acknowledge("good", version)
    await table.acknowledge("dead", 0)
    task = asyncio.create_task(waiting.run())
    waiting.expect("default/a", version)
    await table.leave("dead")
    await eventually(lambda: reached.calls == [("default/a", version)])
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)


class Counting(MemoryTable[RouteEntry]):
    """Counts how often its followers are read."""

    reads = 0

    async def followers(self) -> dict[str, int]:
        self.reads += 1
        return await super().followers()


async def test_followers_are_read_when_one_has_reported_a_version_that_is_waited_for() -> None:
    table, reached = Counting(routing.ROUTING, RouteEntry), Reached()
    waiting = Acknowledgements(table, reached)
    task = asyncio.create_task(waiting.run())
    await eventually(lambda: table.reads == 1)  # at the start
    for name in "abc":
        version = await table.put(f"default/{name}", ENTRY)
        waiting.expect(f"default/{name}", version)
        for _ in range(5):
            await asyncio.sleep(0)
    assert table.reads == 1
    await table.acknowledge("one", version)
    await eventually(lambda: len(reached.calls) == 3)
    assert table.reads == 2
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)


async def test_an_answer_to_an_earlier_question_does_not_count_for_a_newer_version() -> None:
    table, reached = MemoryTable(routing.ROUTING, RouteEntry), Reached()
    waiting = Acknowledgements(table, reached)
    first = await table.put("default/a", ENTRY)
    await table.acknowledge("one", first)
    waiting.expect("default/a", first)
    second = await table.put("default/a", RouteEntry(hosts={}, revisions={}, sticky=True))
    waiting.expect("default/a", second)
    await waiting.check()
    assert reached.calls == []
    await table.acknowledge("one", second)
    await waiting.check()
    assert reached.calls == [("default/a", second)]


async def test_what_is_forgotten_is_not_waited_for() -> None:
    table, reached = MemoryTable(routing.ROUTING, RouteEntry), Reached()
    waiting = Acknowledgements(table, reached)
    version = await table.put("default/a", ENTRY)
    waiting.expect("default/a", version)
    waiting.forget("default/a")
    await table.acknowledge("one", version)
    await waiting.check()
    assert reached.calls == []


class Slow(MemoryStore):
    """Answers "not there" only after another object of that name has come."""

    def __init__(self) -> None:
        super().__init__()
        self.asked, self.goes_on = asyncio.Event(), asyncio.Event()

    async def get(self, resource: str, namespace: str, name: str) -> Json:
        try:
            return await super().get(resource, namespace, name)
        except NotFoundError:
            self.asked.set()
            await self.goes_on.wait()
            raise


async def test_an_object_that_comes_while_its_namesake_is_missed_is_not_forgotten() -> None:
    store = Slow()
    controllers = Controllers(store, tables(Builder()), None, clock=lambda: NOW)  # type: ignore[arg-type]
    cache, resource = controllers.state.cache, kinds.CONFIGURATION.id
    cache.put(resource, await store.create(resource, a_configuration()))
    await store.delete(resource, "default", "app")
    looking = asyncio.create_task(controllers._failures._refresh((resource, "default", "app")))
    await store.asked.wait()
    made = await store.create(resource, a_configuration())
    cache.put(resource, made)
    store.goes_on.set()
    await looking
    assert cache.get(resource, "default", "app") == made


def a_service(name: str = "app") -> Json:
    template = {"spec": {"containers": [{"name": "c", "image": "i"}]}}
    body = {
        "apiVersion": kinds.SERVICE.api_version, "kind": "Service",
        "metadata": {"name": name, "namespace": "default"},
        "spec": {"template": template, "traffic": [{"latestRevision": True, "percent": 100}]},
    }  # fmt: skip
    return objects.with_identity(body, NOW)


class Batches(MemoryStore):
    """Records which kinds are written together, and refuses the first creation of one kind."""

    def __init__(self, refused: str = "") -> None:
        super().__init__()
        self.together: list[list[str]] = []
        self.refused = refused

    async def create(self, resource: str, body: Json) -> Json:
        if resource == self.refused:
            self.refused = ""
            raise StoreUnavailableError("Redis does not respond")
        return await super().create(resource, body)

    async def write_all(self, writes: Sequence[ObjectWrite]) -> Sequence[Json | KnollError]:
        self.together.append([write.resource for write in writes])
        return await super().write_all(writes)


async def messages_about(store: MemoryStore, kind: str) -> set[str]:
    events = (await store.list(kinds.EVENT.id)).items
    return {event["message"] for event in events if event["involvedObject"]["kind"] == kind}


async def test_configuration_and_route_of_a_service_are_created_in_one_round_trip() -> None:
    store, builder = Batches(), Builder()
    async with running(store, builder):
        await store.create(kinds.SERVICE.id, a_service())
        await eventually(lambda: builder.asked == ["app-00001"])
        assert store.together[0] == [kinds.CONFIGURATION.id, kinds.ROUTE.id]
        route = await store.get(kinds.ROUTE.id, "default", "app")
        assert (objects.condition(route) or {})["status"] == "Unknown", "the Route knows the new Configuration"
        created = {'Created Configuration "app"', 'Created Route "app"'}

        async def is_recorded() -> bool:
            return created <= await messages_about(store, "Service")

        await eventually(is_recorded)


@pytest.mark.parametrize("refused", [kinds.CONFIGURATION.id, kinds.ROUTE.id])
async def test_a_creation_that_fails_beside_another_one_is_repeated(refused: str) -> None:
    store, builder = Batches(refused), Builder()
    async with running(store, builder) as controllers:
        await store.create(kinds.SERVICE.id, a_service())
        await eventually(lambda: builder.asked == ["app-00001"])

        async def is_routed() -> bool:
            return {'Created Configuration "app"', 'Created Route "app"'} <= await messages_about(store, "Service")

        await eventually(is_routed)
        await eventually(lambda: controllers.queue.idle)
        for kind in (kinds.CONFIGURATION, kinds.ROUTE, kinds.REVISION):
            assert len((await store.list(kind.id)).items) == 1
