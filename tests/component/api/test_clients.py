"""Other clients: the official Python client through a restart, and malformed bodies."""

import asyncio
import random
from collections.abc import AsyncIterator
from typing import Any

import httpx
import kubernetes
import orjson
import pytest
import urllib3
import uvicorn

from api.app import create_app
from api.auth.access import TrustedPort
from api.resource import bootstrap
from knoll.process.admin import QuietServer
from knoll.process.settings import ApiSettings
from knoll.redis.client import connected
from knoll.store.protocol import Store
from knoll.store.redis_store import RedisStore
from knoll.values.json import Json
from tests.component.api.conftest import CONFIG_MAPS, SERVICES, Make, Running
from tests.conftest import free_port
from tests.doubles.memory_store import MemoryStore
from tests.waiting import eventually


@pytest.fixture
async def store() -> MemoryStore:
    return MemoryStore()


class Serving:
    """An API on one port that can be stopped and started again, as a process can."""

    def __init__(self, settings: ApiSettings, port: int) -> None:
        self._settings = settings
        self.port = port

    async def start(self, store: Store) -> None:
        await bootstrap.create_all(store, self._settings)
        self._app = create_app(store, self._settings)
        config = uvicorn.Config(TrustedPort(self._app), host="127.0.0.1", port=self.port, log_config=None)
        self._server = QuietServer(config)
        self._work = asyncio.create_task(self._server.serve())
        await eventually(lambda: self._server.started, condition="the API")

    async def stop(self) -> None:
        self._app.state.watches.close()
        self._server.should_exit = True
        await self._work


@pytest.fixture
async def redis_store(redis_url: str) -> AsyncIterator[RedisStore]:
    async with connected(redis_url, "test") as redis:
        store = RedisStore(redis)
        yield store
        await store.close()


@pytest.mark.redis
async def test_the_official_client_misses_no_event_through_a_restart(
    redis_store: RedisStore, settings: ApiSettings, config_map: Make
) -> None:
    serving = Serving(settings, free_port())
    await serving.start(redis_store)
    configuration = kubernetes.client.Configuration(host=f"http://127.0.0.1:{serving.port}")
    configuration.retries = False
    api_client = kubernetes.client.ApiClient(configuration)
    core = kubernetes.client.CoreV1Api(api_client)
    version = (await asyncio.to_thread(core.list_namespaced_config_map, "default")).metadata.resource_version
    seen: list[str] = []
    done = False

    def follow() -> None:
        """List once, then watch on and on from the last version seen: what an informer does."""
        at = version
        while not done:
            watch = kubernetes.watch.Watch()
            try:
                for event in watch.stream(
                    core.list_namespaced_config_map, "default", resource_version=at, timeout_seconds=20
                ):
                    seen.append(f"{event['type']} {event['object'].metadata.name}")
                    at = event["object"].metadata.resource_version
                    if seen[-1] == "ADDED last":
                        return
            except urllib3.exceptions.HTTPError:
                continue  # the API is away

    following = asyncio.create_task(asyncio.to_thread(follow))
    names_seen: list[str] = []

    async def write(name: str) -> None:
        await asyncio.to_thread(core.create_namespaced_config_map, "default", config_map(name))
        names_seen.append(f"ADDED {name}")

    for number in range(5):
        await write(f"before-{number}")
    await eventually(lambda: len(seen) == 5, condition="the first events")
    await serving.stop()
    # Controllers and other APIs go on writing meanwhile.
    for number in range(5):
        body = config_map(f"meanwhile-{number}")
        body["metadata"] |= {"namespace": "default", "uid": str(number)}
        await redis_store.create("configmaps", body)
        names_seen.append(f"ADDED meanwhile-{number}")
    await serving.start(redis_store)
    for number in range(5):
        await write(f"after-{number}")
    await asyncio.to_thread(core.delete_namespaced_config_map, "after-0", "default")
    names_seen.append("DELETED after-0")
    await write("last")
    try:
        await asyncio.wait_for(following, 30)
    finally:
        done = True
        api_client.close()
        await serving.stop()
    assert seen == names_seen


@pytest.mark.redis
async def test_the_official_client_does_everything_with_objects(
    redis_store: RedisStore, settings: ApiSettings, service: Make
) -> None:
    serving = Serving(settings, free_port())
    await serving.start(redis_store)
    api_client = kubernetes.client.ApiClient(kubernetes.client.Configuration(host=f"http://127.0.0.1:{serving.port}"))
    custom = kubernetes.client.CustomObjectsApi(api_client)
    where = ("serving.knative.dev", "v1", "default", "services")
    core = kubernetes.client.CoreV1Api(api_client)

    def session() -> None:
        made = custom.create_namespaced_custom_object(*where, service())
        assert custom.get_namespaced_custom_object(*where, "hello") == made
        patched = custom.patch_namespaced_custom_object(*where, "hello", {"metadata": {"labels": {"a": "b"}}})
        assert patched["metadata"]["labels"] == {"a": "b"}
        assert len(custom.list_namespaced_custom_object(*where, label_selector="a=b")["items"]) == 1
        plain = {**made, "metadata": made["metadata"] | {"resourceVersion": patched["metadata"]["resourceVersion"]}}
        replaced = custom.replace_namespaced_custom_object(*where, "hello", plain)
        assert "labels" not in replaced["metadata"]
        with pytest.raises(kubernetes.client.ApiException) as refused:
            custom.replace_namespaced_custom_object(*where, "hello", patched)
        assert refused.value.status == 409
        custom.delete_namespaced_custom_object(*where, "hello")
        secret = kubernetes.client.V1Secret(
            metadata=kubernetes.client.V1ObjectMeta(name="s"), string_data={"password": "hunter2"}
        )
        core.create_namespaced_secret("default", secret)
        assert core.read_namespaced_secret("s", "default").data == {"password": "aHVudGVyMg=="}
        core.patch_namespaced_secret("s", "default", {"data": {"more": "eA=="}})
        assert set(core.read_namespaced_secret("s", "default").data) == {"password", "more"}
        assert "default" in [item.metadata.name for item in core.list_namespace().items]

    try:
        await asyncio.to_thread(session)
    finally:
        api_client.close()
        await serving.stop()


def mutated(body: Any, chance: random.Random) -> Any:
    """The same with some parts replaced by others, left out or nested."""
    odd = [None, True, -1, 10**18, 1.5, "", "x" * 300, [], {}, [[]], {"a": {"b": None}}, "\u0000", "ü", body]
    if chance.random() < 0.08:
        return chance.choice(odd)
    if isinstance(body, dict):
        return {
            (key if chance.random() > 0.03 else f"{key}?"): mutated(part, chance)
            for key, part in body.items()
            if chance.random() > 0.04
        }
    if isinstance(body, list):
        return [mutated(part, chance) for part in body] * chance.choice([1, 1, 1, 0, 2])
    return body


def examples(service: Make, config_map: Make) -> list[tuple[str, Json]]:
    """A body for each kind that can be written, with much in it."""
    full = service(labels={"a": "b"}, annotations={"c": "d"}, finalizers=["e/f"], generateName="g")
    probe = {"httpGet": {"path": "/", "port": 8080, "httpHeaders": [{"name": "a", "value": "b"}]}, "periodSeconds": 3}
    full["spec"]["template"] = {
        "metadata": {"annotations": {"autoscaling.knative.dev/target": "10", "autoscaling.knative.dev/window": "60s"}},
        "spec": {
            "containerConcurrency": 5,
            "timeoutSeconds": 30,
            "serviceAccountName": "default",
            "volumes": [{"name": "v", "configMap": {"name": "m", "items": [{"key": "k", "path": "p"}]}}],
            "containers": [
                {
                    "image": "registry.example/a:b",
                    "env": [{"name": "A", "valueFrom": {"secretKeyRef": {"name": "s", "key": "k"}}}],
                    "envFrom": [{"configMapRef": {"name": "m"}}],
                    "ports": [{"containerPort": 8080, "name": "h2c"}],
                    "resources": {"limits": {"cpu": "100m", "memory": "1Gi"}},
                    "readinessProbe": probe,
                    "livenessProbe": {"exec": {"command": ["true"]}},
                    "securityContext": {"runAsUser": 1000},
                    "volumeMounts": [{"name": "v", "mountPath": "/v"}],
                }
            ],
        },
    }
    full["spec"]["traffic"] = [{"latestRevision": True, "percent": 100, "tag": "t"}]
    serving = SERVICES.removesuffix("services")
    core = CONFIG_MAPS.removesuffix("configmaps")

    def named(kind: str, version: str = "v1", name: str = "x", **more: Any) -> Json:
        return {"apiVersion": version, "kind": kind, "metadata": {"name": name}, **more}

    claim = {"accessModes": ["ReadWriteOnce"], "resources": {"requests": {"storage": "1Gi"}}}
    mapping = {"ref": {"apiVersion": "serving.knative.dev/v1", "kind": "Service", "name": "x"}}
    old = "serving.knative.dev/v1beta1"
    build = "build.knoll.dev/v1alpha1"
    return [
        (SERVICES, full),
        (f"{serving}configurations", {**full, "kind": "Configuration"}),
        (f"{serving}routes", {**full, "kind": "Route"}),
        (CONFIG_MAPS, config_map(labels={"a": "b"}, ownerReferences=[{"uid": "u", "name": "n"}])),
        (f"{core}secrets", named("Secret", stringData={"a": "b"})),
        (f"{core}services", named("Service", spec={"ports": [{"port": 80, "targetPort": "http"}]})),
        (f"{core}persistentvolumeclaims", named("PersistentVolumeClaim", spec=claim)),
        (f"{core}resourcequotas", named("ResourceQuota", spec={"hard": {"cpu": 1}})),
        (f"{core}serviceaccounts", named("ServiceAccount", secrets=[{"name": "s"}])),
        (f"{core}events", named("Event", involvedObject={"name": "x"}, count=1)),
        ("/api/v1/namespaces", named("Namespace")),
        (f"/apis/{old}/namespaces/default/domainmappings", named("DomainMapping", old, "a.example.com", spec=mapping)),
        (f"/apis/{build}/namespaces/default/builds", named("Build", build, spec={"tag": "a:b"})),
    ]


async def answered(api: Running, method: str, path: str, body: Any, content_type: str, **parameters: str) -> None:
    content = orjson.dumps(body)
    try:
        answer = await api.client.request(
            method, path, content=content, headers={"Content-Type": content_type}, params=parameters
        )
    except httpx.RemoteProtocolError as error:
        pytest.fail(f"{method} {path} broke the connection: {error}: {content[:2000]!r}")
    assert answer.status_code < 500, f"{method} {path} {content_type}: {answer.text[:500]}: {content[:3000]!r}"
    if answer.status_code >= 400:
        assert answer.json()["kind"] == "Status"


@pytest.mark.parametrize("seed", range(8))
async def test_no_body_makes_the_server_fail(api: Running, service: Make, config_map: Make, seed: int) -> None:
    chance = random.Random(seed)
    kinds = examples(service, config_map)
    modes = ["Strict", "Warn", "Ignore"]
    for _ in range(6):
        for path, example in kinds:
            body = mutated(example, chance)
            await answered(api, "POST", path, body, "application/json", fieldValidation=chance.choice(modes))
    for path, example in kinds:
        name = example["metadata"]["name"]
        await answered(api, "POST", path, example, "application/json")
        own = f"{path}/{name}"
        for _ in range(3):
            for method, content_type in (
                ("PUT", "application/json"),
                ("PUT", "application/yaml"),
                ("PATCH", "application/merge-patch+json"),
                ("PATCH", "application/json-patch+json"),
                ("PATCH", "application/strategic-merge-patch+json"),
                ("PATCH", "application/apply-patch+yaml"),
            ):
                body = mutated(example, chance)
                if content_type == "application/json-patch+json" and isinstance(body, dict):
                    body = [{"op": "add", "path": f"/{key}", "value": part} for key, part in body.items()]
                await answered(api, method, own, body, content_type, fieldManager="fuzz")
                if "status" in own or path == SERVICES:
                    status = {**example, "status": mutated({"conditions": [{"type": "Ready"}], "url": "x"}, chance)}
                    await answered(api, "PUT", f"{own}/status", status, "application/json")
        await answered(
            api, "DELETE", own, mutated({"preconditions": {"uid": "u"}, "dryRun": ["All"]}, chance), "application/json"
        )


@pytest.mark.parametrize("method", ["POST", "PUT", "PATCH", "DELETE"])
async def test_ten_megabytes_are_refused_whatever_they_are(api: Running, method: str) -> None:
    path = CONFIG_MAPS if method == "POST" else f"{CONFIG_MAPS}/x"
    for content in (b"[" * 10_000_000, b"a: &a [*a]\n" * 1_000_000, b"k8s\x00" + b"\xff" * 10_000_000):
        for content_type in ("application/json", "application/yaml", "application/vnd.kubernetes.protobuf"):
            try:
                answer = await api.client.request(method, path, content=content, headers={"Content-Type": content_type})
            except (httpx.WriteError, httpx.ReadError):
                # Refused before all of it was sent; the server keeps running.
                assert (await api.client.get("/readyz")).status_code == 200
                continue
            assert answer.status_code == 413


async def test_a_body_with_very_many_mistakes_delays_no_other_request_and_gets_a_short_answer(
    api: Running, service: Make
) -> None:
    body = service()
    body["spec"]["template"]["spec"]["containers"] = [{}] * 40_000
    slow = asyncio.create_task(api.client.post(SERVICES, json=body))
    others = 0
    while not slow.done():
        assert (await api.client.get("/healthz")).status_code == 200
        others += 1
    answer = await slow
    assert answer.status_code == 400
    assert len(answer.content) < 64 * 1024
    assert "more characters" in answer.json()["message"]
    assert others > 3
