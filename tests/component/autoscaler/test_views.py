"""What the autoscaler shows over HTTP."""

import time
from functools import partial
from types import SimpleNamespace

import httpx
import pytest

from autoscaler.io import metrics, views
from knoll.auth import process_tokens, tokens
from knoll.auth.tokens import SigningKey
from knoll.process import admin
from tests.component.autoscaler.conftest import AutoscalerHarness
from tests.doubles.fake_engine import FakeProgram
from tests.doubles.fake_runtime import FakeRuntime

KEY = SigningKey.fresh()
mint_for_api = partial(tokens.mint, KEY, namespace="knative-serving", name="api", now=time.time())
"""Mints tokens of the platform's own ServiceAccount."""


def client(harness: AutoscalerHarness) -> httpx.AsyncClient:
    assert harness.autoscaler is not None
    looker = SimpleNamespace(scalers=harness.autoscaler.registry.by_uid)

    async def ready() -> str:
        return ""

    async def key() -> SigningKey:
        return KEY

    routes = views.routes(FakeRuntime(harness.engine), looker, key)
    app = admin.app(ready, routes, metrics.exposition(lambda: looker.scalers))
    return httpx.AsyncClient(
        transport=httpx.ASGITransport(app),
        base_url="http://autoscaler",
        headers={"Authorization": f"Bearer {process_tokens.mint(KEY, time.time())}"},
    )


async def test_instances_are_listed(harness: AutoscalerHarness) -> None:
    await harness.start()
    key = await harness.apply()
    (endpoint,) = await harness.ready(key)
    async with client(harness) as http:
        (shown,) = (await http.get("/instances")).json()["instances"]
    assert (shown["name"], shown["revision"], shown["address"], shown["port"]) == (
        endpoint.id,
        key,
        endpoint.host,
        endpoint.port,
    )
    assert shown["labels"]["serving.knative.dev/service"] == "hello"
    assert shown["containers"][0] == {
        "name": "user-container", "running": True, "exitCode": None, "restarts": 0, "oomKilled": False,
    }  # fmt: skip


async def test_an_unavailable_engine_is_reported(harness: AutoscalerHarness) -> None:
    await harness.start()
    harness.engine.go_away()
    async with client(harness) as http:
        answer = await http.get("/instances")
    assert answer.status_code == 503
    harness.engine.come_back()


async def test_a_containers_log_is_shown(harness: AutoscalerHarness) -> None:
    harness.engine.behave = lambda _: FakeProgram(output=b"one\ntwo\nthree\n")
    await harness.start()
    (endpoint,) = await harness.ready(await harness.apply())
    async with client(harness) as http:
        path = f"/namespaces/default/pods/{endpoint.id}/log?container=user-container"
        assert (await http.get(path)).text == "one\ntwo\nthree\n"
        assert (await http.get(f"{path}&tailLines=1")).text == "three\n"
        assert (await http.get(f"{path}&tailLines=-1")).status_code == 400
        assert (await http.get(f"{path}&sinceSeconds=soon")).status_code == 400
        for other in (path.replace("default", "other"), path.replace(endpoint.id, "none")):
            assert (await http.get(other)).status_code == 404
        assert (await http.get(f"{path}&limitBytes=5")).text == "one\nt"


async def test_a_decision_is_explained(harness: AutoscalerHarness) -> None:
    await harness.start()
    key = await harness.apply()
    await harness.ready(key)
    await harness.has_status(key, initial_reached=True)
    await harness.report(key, 150.0)
    await harness.ready(key, 3)
    async with client(harness) as http:
        (shown,) = (await http.get("/explain/default/hello-00001")).json()["revisions"]
        assert (await http.get("/explain/default/none")).status_code == 404
    assert shown["status"]["desired"] == 3
    assert shown["scaling"]["target"] == 70
    assert {instance["stage"] for instance in shown["instances"]} == {"ready"}
    assert "desired 3" in shown["changes"][-1]["decision"]


async def test_metrics_have_the_scale_of_each_revision(harness: AutoscalerHarness) -> None:
    await harness.start()
    key = await harness.apply()
    await harness.ready(key)
    await harness.has_status(key, initial_reached=True, desired=1)
    async with client(harness) as http:
        text = (await http.get("/metrics")).text
    for line in (
        f'knoll_desired_instances{{revision="{key}"}} 1.0',
        f'knoll_instances{{revision="{key}",stage="ready"}} 1.0',
        f'knoll_instance_starts_total{{revision="{key}"}} 1.0',
    ):
        assert line in text


@pytest.mark.parametrize(
    "header",
    [
        "",
        "Bearer",
        "Bearer x",
        f"Basic {process_tokens.mint(KEY, time.time())}",
        f"Bearer {process_tokens.mint(SigningKey.fresh(), time.time())}",
        f"Bearer {process_tokens.mint(KEY, time.time() - 3600)}",
        f"Bearer {mint_for_api(uid='knoll.dev/processes')}",
        f"Bearer {mint_for_api(uid='1b1f', audiences=[process_tokens.AUDIENCE])}",
        "Bearer "
        + tokens.mint(
            KEY,
            namespace="default",
            name="me",
            uid="knoll.dev/processes",
            now=time.time(),
            audiences=[process_tokens.AUDIENCE],
        ),
    ],
    ids=[
        "nothing",
        "no token",
        "no JWT",
        "another scheme",
        "another key",
        "expired",
        "for the API",
        "a tenant's account of that name",
        "another account",
    ],
)
async def test_views_of_tenants_are_only_for_the_api(harness: AutoscalerHarness, header: str) -> None:
    await harness.start()
    (endpoint,) = await harness.ready(await harness.apply())
    async with client(harness) as http:
        for path in ("/instances", f"/namespaces/default/pods/{endpoint.id}/log", "/explain/default/hello-00001"):
            assert (await http.get(path)).status_code == 200
            assert (await http.get(path, headers={"Authorization": header})).status_code == 401
        assert (await http.get("/metrics", headers={"Authorization": header})).status_code == 200
