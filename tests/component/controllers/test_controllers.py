"""The controllers on a real Redis, from what a user applies to its traffic; the other processes follow a script."""

import asyncio
import uuid
from collections.abc import AsyncIterator
from dataclasses import dataclass
from functools import partial
from typing import Any

import pytest

from api import controllers
from api.controllers.reconciler import objects
from knoll.process.settings import ApiSettings
from knoll.redis.client import connect
from knoll.store.redis_store import RedisStore
from knoll.values import kinds
from knoll.values import labels as well_known
from knoll.values.errors import ConflictError, NotFoundError
from knoll.values.json import Json
from tests.component.controllers.edge import Edge, open_edge
from tests.waiting import eventually

pytestmark = pytest.mark.redis
SERVICE, CONFIGURATION, REVISION, ROUTE = kinds.SERVICE, kinds.CONFIGURATION, kinds.REVISION, kinds.ROUTE
NOW = 1_780_000_000.0


@dataclass
class Platform:
    """Controllers that run, the edge, and what a user does."""

    url: str
    store: RedisStore
    edge: Edge
    stop: asyncio.Event
    task: asyncio.Task[None] | None = None

    def start(self) -> None:
        self.stop.clear()
        self.task = asyncio.create_task(self._run())

    async def _run(self) -> None:
        redis = connect(self.url, "api")
        store = RedisStore(redis)
        try:
            await controllers.run(store, redis, ApiSettings(redis_url=self.url, public_port=8080), self.stop)
        finally:
            await store.close()
            await redis.aclose()

    async def end(self) -> None:
        self.stop.set()
        if self.task:
            await self.task
            self.task = None

    async def apply(self, name: str = "hello", image: str = "img:v1", traffic: Any = None, revision: str = "") -> Json:
        template: Json = {"spec": {"containers": [{"name": "user-container", "image": image}], "timeoutSeconds": 300}}
        if revision:
            template["metadata"] = {"name": revision}
        spec = {"template": template, "traffic": traffic or [{"latestRevision": True, "percent": 100}]}
        while True:
            try:
                before = await self.store.get(SERVICE.id, "default", name)
            except NotFoundError:
                body = {
                    "apiVersion": SERVICE.api_version, "kind": "Service",
                    "metadata": {"name": name, "namespace": "default", "annotations": {well_known.LAST_MODIFIER: "me"}},
                    "spec": spec,
                }  # fmt: skip
                return await self.store.create(SERVICE.id, objects.with_identity(body, NOW))
            try:
                return await self.store.update(SERVICE.id, objects.with_generation(before, {**before, "spec": spec}))
            except ConflictError:
                continue

    async def get(self, kind: kinds.Kind, name: str = "hello") -> Json:
        return await self.store.get(kind.id, "default", name)

    async def is_ready(self, name: str = "hello", generation: int = 1) -> bool:
        body = await self.get(SERVICE, name)
        return objects.generation(body) == generation and objects.is_ready(body)

    async def reason(self, kind: kinds.Kind = SERVICE, name: str = "hello") -> tuple[str, str]:
        condition = objects.condition(await self.get(kind, name)) or {}
        return str(condition.get("status", "")), str(condition.get("reason", ""))


@pytest.fixture
async def platform(redis_url: str) -> AsyncIterator[Platform]:
    redis, store, edge = open_edge(redis_url)
    made = Platform(redis_url, store, edge, asyncio.Event())
    made.start()
    try:
        yield made
    finally:
        await made.end()
        await edge.stop()
        await store.close()
        await redis.aclose()


async def test_a_service_goes_all_the_way_from_apply_to_ready(platform: Platform) -> None:
    platform.edge.start()
    await platform.apply()
    await eventually(platform.is_ready)
    service = await platform.get(SERVICE)
    assert service["status"]["url"] == "http://hello.default.localhost:8080"
    assert service["status"]["traffic"] == [{"revisionName": "hello-00001", "latestRevision": True, "percent": 100}]
    entry = platform.edge.served["default/hello"]
    assert [share.revision for share in entry.hosts["hello.default.localhost"]] == ["default/hello-00001"]
    assert platform.edge.jobs == [("resolve", "hello-00001")], "asked once"


async def test_a_new_image_a_split_and_a_rollback(platform: Platform) -> None:
    platform.edge.start()
    await platform.apply(revision="hello-v1")
    await eventually(platform.is_ready)
    halves = [{"revisionName": "hello-v1", "percent": 50}, {"revisionName": "hello-v2", "percent": 50}]
    await platform.apply(image="img:v2", revision="hello-v2", traffic=halves)
    await eventually(lambda: platform.is_ready(generation=2))

    def shares() -> dict[str, int]:
        entry = platform.edge.served["default/hello"]
        return {share.revision: share.percent for share in entry.hosts["hello.default.localhost"]}

    assert shares() == {"default/hello-v1": 50, "default/hello-v2": 50}
    await platform.apply(image="img:v2", revision="hello-v2", traffic=[{"revisionName": "hello-v1", "percent": 100}])
    await eventually(lambda: platform.is_ready(generation=3))
    assert shares() == {"default/hello-v1": 100}


async def test_ready_waits_for_every_living_activator(platform: Platform) -> None:
    obeys = False
    platform.edge.start()
    await eventually(lambda: _followers(platform, 1))
    platform.edge.start_activator("slow", lambda: obeys or not platform.edge.served)
    await eventually(lambda: _followers(platform, 2))
    await platform.apply()
    await eventually(lambda: "default/hello" in platform.edge.served)
    await eventually(lambda: _is(platform.reason(), ("Unknown", "IngressNotConfigured")))
    assert not await platform.is_ready()
    obeys = True
    await platform.apply(name="next")
    await eventually(platform.is_ready)


async def test_without_an_activator_nothing_is_ready_until_one_comes(platform: Platform) -> None:
    platform.edge.start(activators=0)
    await platform.apply()
    await eventually(lambda: _is(platform.reason(), ("Unknown", "IngressNotConfigured")))
    platform.edge.start_activator("late")
    await eventually(platform.is_ready)


async def test_a_missing_image_fails_every_kind_and_the_next_revision_recovers(platform: Platform) -> None:
    platform.edge.missing.add("img:nope")
    platform.edge.start()
    await platform.apply(image="img:nope")

    async def failed() -> bool:
        return (await platform.reason())[0] == "False"

    await eventually(failed)
    for kind, name in ((CONFIGURATION, "hello"), (ROUTE, "hello"), (REVISION, "hello-00001")):
        assert (await platform.reason(kind, name))[0] == "False"
    message = objects.condition(await platform.get(CONFIGURATION))
    assert message is not None
    assert "MANIFEST_UNKNOWN" in message["message"]
    await platform.apply(image="img:v2")
    await eventually(lambda: platform.is_ready(generation=2))


async def test_deleting_a_service_ends_its_routing_entry(platform: Platform) -> None:
    platform.edge.start()
    await platform.apply()
    await eventually(platform.is_ready)
    await platform.store.delete(SERVICE.id, "default", "hello")
    await eventually(lambda: "default/hello" not in platform.edge.served)
    for kind, name in ((ROUTE, "hello"), (CONFIGURATION, "hello"), (REVISION, "hello-00001")):
        await eventually(partial(_gone, platform, kind, name))
    await eventually(partial(_gone, platform, kinds.CORE_SERVICE, "hello"))

    async def nothing_is_left() -> bool:
        return (await platform.edge.tables.resolutions.snapshot())[1] == {}

    await eventually(nothing_is_left)


async def test_a_service_that_is_recreated_immediately_never_fails(platform: Platform) -> None:
    """Objects of the first Service still exist for a moment; that must not be reported as a failure."""
    platform.edge.start()
    await platform.apply()
    await eventually(platform.is_ready)
    since = await platform.store.version()
    await platform.store.delete(SERVICE.id, "default", "hello")
    uid = (await platform.apply())["metadata"]["uid"]
    states = []
    async for event in platform.store.watch(since, {SERVICE.id}):
        ready = objects.condition(event.body)
        if event.body["metadata"]["uid"] == uid and ready:
            states.append(ready["status"])
            if objects.is_ready(event.body):
                break
    assert set(states) == {"Unknown", "True"}


async def test_controllers_that_start_again_write_nothing_when_all_is_settled(platform: Platform) -> None:
    platform.edge.start()
    await platform.apply()
    await eventually(platform.is_ready)
    await platform.end()
    before = await platform.store.version()
    platform.start()
    await platform.apply(name="marker")
    await eventually(lambda: platform.is_ready("marker"))
    for kind in (SERVICE, CONFIGURATION, ROUTE):
        assert int((await platform.get(kind))["metadata"]["resourceVersion"]) <= before
    assert platform.edge.jobs.count(("resolve", "hello-00001")) == 1


async def test_what_happened_while_the_controllers_were_away_is_caught_up(platform: Platform) -> None:
    platform.edge.start()
    await platform.apply()
    await eventually(platform.is_ready)
    await platform.end()
    await platform.apply(image="img:v2")
    await platform.apply(name="second")
    await platform.store.delete(ROUTE.id, "default", "hello")
    platform.start()
    await eventually(lambda: platform.is_ready(generation=2))
    await eventually(lambda: platform.is_ready("second"))


async def test_writers_that_come_between_are_not_overwritten(platform: Platform) -> None:
    platform.edge.start()

    async def annotate(number: int) -> None:
        """A user who edits annotations while the controllers write the status."""
        while True:
            body = await platform.get(SERVICE)
            notes = {**objects.annotations(body), f"note-{number}": str(uuid.uuid4())}
            try:
                await platform.store.update(SERVICE.id, objects.changed(body, new_annotations=notes))
                return
            except ConflictError:
                continue

    await platform.apply()
    await asyncio.gather(*(annotate(number) for number in range(20)))
    await eventually(platform.is_ready)
    body = await platform.get(SERVICE)
    assert {f"note-{number}" for number in range(20)} <= set(objects.annotations(body))

    async def the_children_have_them() -> bool:
        return f"note-{19}" in objects.annotations(await platform.get(CONFIGURATION))

    await eventually(the_children_have_them)


async def test_a_build_is_handed_over_and_its_end_is_in_its_status(platform: Platform) -> None:
    platform.edge.start()
    body = {
        "apiVersion": kinds.BUILD_KIND.api_version, "kind": "Build",
        "metadata": {"name": "b", "namespace": "default"}, "spec": {"tag": "x:1", "source": {"upload": {"id": "u"}}},
    }  # fmt: skip
    await platform.store.create(kinds.BUILD_KIND.id, objects.with_identity(body, NOW))

    async def succeeded() -> bool:
        build = await platform.get(kinds.BUILD_KIND, "b")
        return objects.status(build).get("phase") == "Succeeded" and objects.is_ready(build)

    await eventually(succeeded)
    assert platform.edge.jobs == [("build", "b")]


async def test_events_report_what_happened_to_a_service(platform: Platform) -> None:
    platform.edge.start()
    uid = (await platform.apply())["metadata"]["uid"]
    await eventually(platform.is_ready)

    async def is_reported() -> bool:
        events = (await platform.store.list(kinds.EVENT.id)).items
        about = {(event["involvedObject"]["kind"], event["reason"]) for event in events}
        assert about >= {
            ("Service", "Created"), ("Configuration", "Created"), ("Configuration", "LatestReadyUpdate"),
            ("Revision", "RevisionReady"),
        }  # fmt: skip
        return any(event["involvedObject"]["uid"] == uid for event in events)

    await eventually(is_reported)


async def test_a_change_of_the_domain_moves_every_route(platform: Platform) -> None:
    platform.edge.start()
    await platform.apply()
    await platform.apply(name="other")
    await eventually(platform.is_ready)
    await eventually(lambda: platform.is_ready("other"))
    await _configure(platform, "config-domain", {"_example": "text", "example.org": ""})

    async def moved(name: str) -> bool:
        body = await platform.get(SERVICE, name)
        hosts = platform.edge.served[f"default/{name}"].hosts
        url = f"http://{name}.default.example.org:8080"
        return body["status"]["url"] == url and list(hosts) == [f"{name}.default.example.org"]

    for name in ("hello", "other"):
        await eventually(partial(moved, name))
        await eventually(partial(platform.is_ready, name))


async def test_invalid_configuration_changes_nothing(platform: Platform) -> None:
    platform.edge.start()
    await _configure(platform, "config-network", {"tag-template": "{{.Nonsense}}"})
    await platform.apply(traffic=[{"latestRevision": True, "percent": 100, "tag": "t"}])
    await eventually(platform.is_ready)
    assert set(platform.edge.served["default/hello"].hosts) == {
        "hello.default.localhost", "t-hello.default.localhost"
    }  # fmt: skip


async def test_a_rollout_takes_its_time_and_ends(platform: Platform) -> None:
    platform.edge.start()
    await _configure(platform, "config-network", {"rollout-duration": "2"})
    await platform.apply()
    await eventually(platform.is_ready)
    seen: list[int] = []
    since = await platform.store.version()
    await platform.apply(image="img:v2")
    async for event in platform.store.watch(since, {ROUTE.id}):
        status = objects.status(event.body)
        shares = {target["revisionName"]: target["percent"] for target in status.get("traffic", [])}
        assert sum(shares.values()) == 100
        if shares.get("hello-00002", 0) not in seen:
            seen.append(shares.get("hello-00002", 0))
        if objects.is_ready(event.body) and shares.get("hello-00002") == 100:
            break
    assert seen in ([0, 1, 51, 100], [1, 51, 100])


async def test_another_leader_takes_over(platform: Platform) -> None:
    platform.edge.start()
    await platform.apply()
    await eventually(platform.is_ready)
    second = Platform(platform.url, platform.store, platform.edge, asyncio.Event())
    second.start()
    try:
        await platform.end()
        await platform.apply(name="later")
        await eventually(lambda: platform.is_ready("later"))
    finally:
        await second.end()


async def test_a_mapped_host_is_routed(platform: Platform) -> None:
    platform.edge.start()
    await platform.apply()
    body = {
        "apiVersion": kinds.DOMAIN_MAPPING.api_version, "kind": "DomainMapping",
        "metadata": {"name": "www.example.org", "namespace": "default"},
        "spec": {"ref": {"apiVersion": "serving.knative.dev/v1", "kind": "Service", "name": "hello"}},
    }  # fmt: skip
    await platform.store.create(kinds.DOMAIN_MAPPING.id, objects.with_identity(body, NOW))

    async def ready() -> bool:
        return objects.is_ready(await platform.get(kinds.DOMAIN_MAPPING, "www.example.org"))

    await eventually(ready)
    assert "www.example.org" in platform.edge.served["default/domainmapping:www.example.org"].hosts
    await platform.store.delete(kinds.DOMAIN_MAPPING.id, "default", "www.example.org")
    await eventually(lambda: list(platform.edge.served) == ["default/hello"])


async def _configure(platform: Platform, name: str, data: dict[str, str]) -> None:
    body = {
        "apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": name, "namespace": "knative-serving"},
        "data": data,
    }  # fmt: skip
    await platform.store.create(kinds.CONFIG_MAP.id, objects.with_identity(body, NOW))


async def _gone(platform: Platform, kind: kinds.Kind, name: str) -> bool:
    try:
        await platform.get(kind, name)
    except NotFoundError:
        return True
    return False


async def _is(actual: Any, expected: tuple[str, str]) -> bool:
    return bool(await actual == expected)


async def _followers(platform: Platform, count: int) -> bool:
    return len(await platform.edge.tables.routing.followers()) == count
