"""Watches: every event once, in order, as the client wants to see it."""

import asyncio

import httpx
import orjson
import pytest

from knoll.process.settings import ApiSettings
from tests.component.api.conftest import CONFIG_MAPS, SERVICES, Make, Running, serving
from tests.component.api.lines import watching
from tests.doubles.memory_store import MemoryStore
from tests.waiting import eventually

MERGE = {"Content-Type": "application/merge-patch+json"}
TABLE = "application/json;as=Table;v=v1;g=meta.k8s.io,application/json"


async def version(api: Running) -> str:
    return str((await api.client.get(CONFIG_MAPS)).json()["metadata"]["resourceVersion"])


async def label(api: Running, name: str, **labels: str | None) -> None:
    await api.client.patch(f"{CONFIG_MAPS}/{name}", json={"metadata": {"labels": labels}}, headers=MERGE)


async def test_a_watch_from_a_list_shows_what_came_after(api: Running, config_map: Make) -> None:
    await api.client.post(CONFIG_MAPS, json=config_map("before"))
    since = await version(api)
    await api.client.post(CONFIG_MAPS, json=config_map("between"))
    async with watching(api.client, CONFIG_MAPS, resourceVersion=since) as lines:
        assert await lines.take(1) == [("ADDED", "between")]
        await label(api, "before", a="b")
        await api.client.delete(f"{CONFIG_MAPS}/between")
        assert await lines.take(2) == [("MODIFIED", "before"), ("DELETED", "between")]


@pytest.mark.parametrize("since", ["", "0"])
async def test_a_watch_from_nowhere_begins_with_what_exists(api: Running, config_map: Make, since: str) -> None:
    for name in ("a", "b"):
        await api.client.post(CONFIG_MAPS, json=config_map(name))
    async with watching(api.client, CONFIG_MAPS, resourceVersion=since) as lines:
        assert await lines.take(2) == [("ADDED", "a"), ("ADDED", "b")]
        await api.client.post(CONFIG_MAPS, json=config_map("c"))
        assert await lines.take(1) == [("ADDED", "c")]


async def test_versions_in_a_watch_only_grow(api: Running, config_map: Make) -> None:
    async with watching(api.client, CONFIG_MAPS) as lines:
        await api.client.post(CONFIG_MAPS, json=config_map())
        for number in range(30):
            await label(api, "settings", n=str(number))
        events = [await lines.next() for _ in range(31)]
        versions = [int(event["object"]["metadata"]["resourceVersion"]) for event in events]
        assert versions == sorted(set(versions))


async def test_entering_and_leaving_a_selection_looks_like_coming_and_going(api: Running, config_map: Make) -> None:
    await api.client.post(CONFIG_MAPS, json=config_map("a", labels={"team": "red"}))
    await api.client.post(CONFIG_MAPS, json=config_map("b"))
    since = await version(api)
    async with watching(api.client, CONFIG_MAPS, resourceVersion=since, labelSelector="team=red") as lines:
        await label(api, "b", team="red")
        await label(api, "a", other="x")
        await label(api, "a", team="blue")
        await label(api, "a", team="green")
        await api.client.delete(f"{CONFIG_MAPS}/a")
        await api.client.delete(f"{CONFIG_MAPS}/b")
        events = [await lines.next() for _ in range(4)]
        seen = [(event["type"], event["object"]["metadata"]["name"]) for event in events]
        assert seen == [("ADDED", "b"), ("MODIFIED", "a"), ("DELETED", "a"), ("DELETED", "b")]
        left = events[2]["object"]["metadata"]
        assert left["labels"]["team"] == "red"
        assert int(left["resourceVersion"]) > int(events[1]["object"]["metadata"]["resourceVersion"])


async def test_a_watch_of_one_name_shows_only_that_object(api: Running, config_map: Make) -> None:
    for parameters in ({"fieldSelector": "metadata.name=a"}, {}):
        path = CONFIG_MAPS if parameters else f"{CONFIG_MAPS}/a"
        since = await version(api)
        async with watching(api.client, path, resourceVersion=since, **parameters) as lines:
            await api.client.post(CONFIG_MAPS, json=config_map("b"))
            await api.client.post(CONFIG_MAPS, json=config_map("a"))
            assert await lines.take(1) == [("ADDED", "a")]
        for name in ("a", "b"):
            await api.client.delete(f"{CONFIG_MAPS}/{name}")


async def test_another_namespace_and_another_kind_stay_out(api: Running, config_map: Make, service: Make) -> None:
    async with watching(api.client, CONFIG_MAPS) as lines:
        await api.client.post("/api/v1/namespaces/knative-serving/configmaps", json=config_map("elsewhere"))
        await api.client.post(SERVICES, json=service())
        await api.client.post(CONFIG_MAPS, json=config_map("here"))
        assert await lines.take(1) == [("ADDED", "here")]


async def test_a_watch_ends_cleanly_after_its_time(api: Running) -> None:
    async with watching(api.client, CONFIG_MAPS, timeoutSeconds="1") as lines:
        assert await lines.rest() == []


async def test_a_bookmark_comes_before_the_end(api: Running, config_map: Make) -> None:
    await api.client.post(CONFIG_MAPS, json=config_map("a"))
    since = await version(api)
    parameters = {"resourceVersion": since, "timeoutSeconds": "1", "allowWatchBookmarks": "true"}
    async with watching(api.client, CONFIG_MAPS, **parameters) as lines:
        [mark] = await lines.rest()
    assert mark["type"] == "BOOKMARK"
    assert mark["object"]["kind"] == "ConfigMap"
    assert mark["object"]["metadata"]["resourceVersion"] == since


async def test_initial_events_end_with_a_marked_bookmark(api: Running, config_map: Make) -> None:
    await api.client.post(CONFIG_MAPS, json=config_map("a"))
    parameters = {
        "sendInitialEvents": "true",
        "allowWatchBookmarks": "true",
        "resourceVersionMatch": "NotOlderThan",
        "resourceVersion": "",
    }
    async with watching(api.client, CONFIG_MAPS, **parameters) as lines:
        assert (await lines.next())["type"] == "ADDED"
        mark = await lines.next()
        assert mark["type"] == "BOOKMARK"
        assert mark["object"]["metadata"]["annotations"] == {"k8s.io/initial-events-end": "true"}


async def test_lost_history_is_an_expired_error_in_the_stream(
    service: Make, config_map: Make, settings: ApiSettings
) -> None:
    store = MemoryStore(history=16)
    async with serving(store, settings) as api:
        since = await version(api)
        for number in range(40):
            await api.client.post(CONFIG_MAPS, json=config_map(f"m{number}"))
        async with watching(api.client, CONFIG_MAPS, resourceVersion=since) as lines:
            [error] = await lines.rest()
    assert error["type"] == "ERROR"
    assert error["object"]["code"] == 410
    assert error["object"]["reason"] == "Expired"


async def test_a_version_from_the_future_is_expired_too(api: Running) -> None:
    future = str(int(await version(api)) + 1000)
    async with watching(api.client, CONFIG_MAPS, resourceVersion=future) as lines:
        [error] = await lines.rest()
        assert error["object"]["reason"] == "Expired"


async def test_a_table_watch_has_one_row_an_event_and_heads_the_first(api: Running, service: Make) -> None:
    async with watching(api.client, SERVICES, accept=TABLE) as lines:
        await api.client.post(SERVICES, json=service("a"))
        await api.client.post(SERVICES, json=service("b"))
        first, second = await lines.next(), await lines.next()
        assert first["object"]["kind"] == "Table"
        assert [row["cells"][0] for row in first["object"]["rows"]] == ["a"]
        assert first["object"]["columnDefinitions"]
        assert [row["cells"][0] for row in second["object"]["rows"]] == ["b"]
        assert second["object"]["columnDefinitions"] == []


async def test_a_watch_of_an_old_version_uses_that_version(api: Running, service: Make) -> None:
    async with watching(api.client, SERVICES.replace("v1/", "v1alpha1/")) as lines:
        await api.client.post(SERVICES, json=service())
        assert (await lines.next())["object"]["apiVersion"] == "serving.knative.dev/v1alpha1"


async def test_the_pods_of_the_system_namespace_can_be_watched_and_the_watch_stays_open(
    api: Running, config_map: Make
) -> None:
    async with watching(api.client, "/api/v1/namespaces/knative-serving/pods") as lines:
        ended = asyncio.create_task(lines.rest(within=60))
        await api.client.post(CONFIG_MAPS, json=config_map())
        await version(api)
        assert not ended.done()
        ended.cancel()


async def test_a_stopping_api_ends_watches_cleanly(api: Running) -> None:
    async with watching(api.client, CONFIG_MAPS) as lines:
        api.app.state.watches.close()
        assert await lines.rest() == []
    async with watching(api.client, CONFIG_MAPS) as late:
        assert await late.rest() == []


async def test_nothing_is_left_of_a_client_that_disconnected(api: Running) -> None:
    async with watching(api.client, CONFIG_MAPS), watching(api.client, SERVICES):
        await eventually(lambda: len(api.app.state.watches) == 2)
    await eventually(lambda: len(api.app.state.watches) == 0)


async def test_many_watchers_see_every_event_in_order(api: Running, config_map: Make) -> None:
    watchers, writers, writes = 40, 10, 12
    since = await version(api)

    async def observe() -> list[int]:
        async with (
            httpx.AsyncClient(base_url=api.url, timeout=60) as client,
            watching(client, CONFIG_MAPS, resourceVersion=since) as lines,
        ):
            events = [await lines.next(within=60) for _ in range(writers * writes)]
            return [int(event["object"]["metadata"]["resourceVersion"]) for event in events]

    async def write(number: int) -> None:
        for step in range(writes):
            body = config_map(f"w{number}-{step}")
            assert (await api.client.post(CONFIG_MAPS, json=body)).status_code == 201

    observers = [asyncio.create_task(observe()) for _ in range(watchers)]
    await asyncio.gather(*(write(number) for number in range(writers)))
    seen = await asyncio.gather(*observers)
    assert all(events == seen[0] for events in seen)
    assert seen[0] == sorted(set(seen[0]))
    assert len(seen[0]) == writers * writes


async def test_a_slow_reader_misses_nothing(api: Running, config_map: Make) -> None:
    """It stops reading while more is written than any buffer between holds."""
    big = {"text": "x" * 100_000}
    since = await version(api)
    reader, writer = await asyncio.open_connection("127.0.0.1", int(api.url.rpartition(":")[2]))
    request = (
        f"GET {CONFIG_MAPS}?watch=true&resourceVersion={since} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n"
    )
    writer.write(request.encode())
    await reader.readuntil(b"\r\n\r\n")
    for number in range(120):
        await api.client.post(CONFIG_MAPS, json=config_map(f"m{number:03}", data=big))
    names: list[str] = []
    buffer = b""
    async with asyncio.timeout(60):
        while len(names) < 120:
            # Chunked framing: a length, then that many bytes.
            size = int(await reader.readline(), 16)
            buffer += (await reader.readexactly(size + 2))[:size]
            *lines, buffer = buffer.split(b"\n")
            names += [orjson.loads(line)["object"]["metadata"]["name"] for line in lines if line]
    writer.close()
    await writer.wait_closed()
    assert names == [f"m{number:03}" for number in range(120)]
