"""The official Python client against a process: it creates, reads, changes, deletes, and watches through `kill -9`."""

import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import kubernetes
import pytest
import urllib3

from knoll.values.json import Json
from tests.component.api.processes import ApiProcess
from tests.waiting import eventually_sync

pytestmark = pytest.mark.redis

GROUP = {"group": "serving.knative.dev", "version": "v1", "namespace": "default", "plural": "services"}
AWAY = (urllib3.exceptions.HTTPError, ConnectionError)
"""What the client raises while no API listens, or when one dies in the middle of an answer."""


@pytest.fixture
def api(redis_url: str, tmp_path: Path) -> Iterator[ApiProcess]:
    with ApiProcess(redis_url, tmp_path) as running:
        yield running


@pytest.fixture
def client(api: ApiProcess) -> Iterator[Any]:
    configuration = kubernetes.client.Configuration(host=api.url)
    configuration.retries = False
    with kubernetes.client.ApiClient(configuration) as api_client:
        yield api_client


def service(name: str, value: str) -> Json:
    container = {"image": "registry.example/hello:v1", "env": [{"name": "VALUE", "value": value}]}
    return {
        "apiVersion": "serving.knative.dev/v1",
        "kind": "Service",
        "metadata": {"name": name, "labels": {"team": "red"}},
        "spec": {"template": {"spec": {"containers": [container]}}},
    }


class Informer:
    """Lists once, then watches on from the last version that it saw, through whatever happens to the API.

    Attributes:
        seen: (type, name, `data.turn`) of every event.
        broken: connections that ended in the middle.
    """

    def __init__(self, core: Any, last: str) -> None:
        self._core = core
        self._last = last
        self._version = core.list_namespaced_config_map("default").metadata.resource_version
        self.seen: list[tuple[str, str, str]] = []
        self.broken = 0
        self.stopped = threading.Event()

    def run(self) -> None:
        """Returns when it has seen the ConfigMap `last`."""
        while not self.stopped.is_set():
            try:
                if self._follow():
                    return
            except AWAY:
                self.broken += 1
                self.stopped.wait(0.05)

    def _follow(self) -> bool:
        watch = kubernetes.watch.Watch()
        listing = self._core.list_namespaced_config_map
        for event in watch.stream(listing, "default", resource_version=self._version, timeout_seconds=30):
            body = event["object"]
            self._version = body.metadata.resource_version
            self.seen.append((event["type"], body.metadata.name, (body.data or {}).get("turn", "")))
            if body.metadata.name == self._last:
                return True
        return False


class Writer:
    """Creates, changes and deletes ConfigMaps, each step until it is done.

    Every step can be taken twice without a second event: one whose answer died with the API may have been done.

    Attributes:
        done: the events that these steps make.
        repeated: steps that had to be taken again.
    """

    def __init__(self, core: Any) -> None:
        self._core = core
        self.done: list[tuple[str, str, str]] = []
        self.repeated = 0
        self.stopped = threading.Event()

    def run(self) -> None:
        number = 0
        while not self.stopped.is_set():
            self.create(f"map-{number:05}")
            self._change(f"map-{number:05}")
            if number % 3 == 2:
                self._delete(f"map-{number - 1:05}")
            number += 1

    def create(self, name: str) -> None:
        body = {"metadata": {"name": name}, "data": {"turn": "1"}}
        self._until_done(409, lambda: self._core.create_namespaced_config_map("default", body))
        self.done.append(("ADDED", name, "1"))

    def _change(self, name: str) -> None:
        body = {"data": {"turn": "2"}}
        self._until_done(0, lambda: self._core.patch_namespaced_config_map(name, "default", body))
        self.done.append(("MODIFIED", name, "2"))

    def _delete(self, name: str) -> None:
        self._until_done(404, lambda: self._core.delete_namespaced_config_map(name, "default"))
        self.done.append(("DELETED", name, "2"))

    def _until_done(self, done_before: int, step: Callable[[], Any]) -> None:
        again = False
        while True:
            try:
                step()
                return
            except kubernetes.client.ApiException as error:
                if again and error.status == done_before:
                    return
                if error.status != 503:
                    raise
            except AWAY:
                pass
            again = True
            self.repeated += 1
            assert not self.stopped.wait(0.05) or self.repeated < 2000


def test_a_watch_misses_no_event_through_kills(api: ApiProcess, client: Any) -> None:
    core = kubernetes.client.CoreV1Api(client)
    informer, writer = Informer(core, "the-last"), Writer(core)
    with ThreadPoolExecutor(2) as pool:
        try:
            watching, writing = pool.submit(informer.run), pool.submit(writer.run)

            def written(count: int) -> bool:
                assert not watching.done()
                assert not writing.done(), writing.exception()
                return len(writer.done) >= count

            for count in (100, 200, 300):
                eventually_sync(lambda least=count: written(least), within=60, condition="the writes")  # type: ignore[misc]
                api.kill()
                api.start()
            eventually_sync(lambda: written(400), within=60, condition="the writes")
            writer.stopped.set()
            writing.result(60)
            writer.create("the-last")
            watching.result(60)
        finally:
            writer.stopped.set()
            informer.stopped.set()
    assert informer.seen == writer.done
    assert informer.broken >= 3
    assert writer.repeated >= 3


def test_services_are_created_read_changed_and_deleted(client: Any) -> None:
    services = kubernetes.client.CustomObjectsApi(client)
    made = services.create_namespaced_custom_object(**GROUP, body=service("hello", "one"))
    assert made["metadata"]["generation"] == 1
    listed = services.list_namespaced_custom_object(**GROUP, label_selector="team=red", limit=1)
    assert [item["metadata"]["name"] for item in listed["items"]] == ["hello"]
    assert services.list_namespaced_custom_object(**GROUP, label_selector="team=blue")["items"] == []

    def changed() -> Json | None:
        """Read, change and write back: again when a controller wrote in between."""
        read = services.get_namespaced_custom_object(**GROUP, name="hello")
        read["spec"] = service("hello", "two")["spec"]
        try:
            return dict(services.replace_namespaced_custom_object(**GROUP, name="hello", body=read))
        except kubernetes.client.exceptions.ConflictException:
            return None

    replaced = eventually_sync(changed, within=30, condition="the change")
    assert replaced is not None
    assert replaced["metadata"]["generation"] == 2
    with pytest.raises(kubernetes.client.ApiException) as refused:
        services.replace_namespaced_custom_object(**GROUP, name="hello", body=made)
    assert refused.value.status == 409
    patched = services.patch_namespaced_custom_object(
        **GROUP, name="hello", body={"metadata": {"annotations": {"note": "hi"}}}
    )
    assert patched["metadata"]["annotations"]["note"] == "hi"
    assert patched["metadata"]["generation"] == 2

    services.delete_namespaced_custom_object(**GROUP, name="hello", propagation_policy="Foreground")

    def gone() -> bool:
        try:
            services.get_namespaced_custom_object(**GROUP, name="hello")
        except kubernetes.client.ApiException as error:
            return bool(error.status == 404)
        return False

    eventually_sync(gone, within=30, condition="the delete")


def test_dynamic_discovery_finds_services_and_watches_them(client: Any, tmp_path: Path) -> None:
    dynamic = kubernetes.dynamic.DynamicClient(client)
    services = dynamic.resources.get(api_version="serving.knative.dev/v1", kind="Service")
    services.create(body=service("dynamic", "one"), namespace="default")
    applied = services.server_side_apply(
        body=service("dynamic", "two"), name="dynamic", namespace="default", field_manager="test", force_conflicts=True
    )
    assert applied.metadata.generation == 2
    at = int(services.get(namespace="default").metadata.resourceVersion)
    services.patch(
        body={"metadata": {"labels": {"team": "blue"}}},
        name="dynamic",
        namespace="default",
        content_type="application/merge-patch+json",
    )
    for event in services.watch(namespace="default", resource_version=at, timeout=30):
        assert event["type"] == "MODIFIED"
        if event["object"].metadata.labels.team == "blue":
            break
    else:
        pytest.fail("the watch ended without the label")
    services.delete(name="dynamic", namespace="default")
