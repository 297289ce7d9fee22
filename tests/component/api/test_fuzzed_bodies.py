"""Hostile bodies: each is refused or accepted, never with a 500, and the memory of the process stays bounded."""

import json
from collections.abc import Iterator
from typing import Any

import httpx
import orjson
import pytest
import redis
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st

from tests.component.api import hostile
from tests.component.api.processes import ApiProcess

pytestmark = [pytest.mark.redis, pytest.mark.timeout(240)]

MOST_MIB = 400
"""Resident memory at any moment of all this; the process begins with about 90."""
ROOM_MIB = 50
"""What may be left of it once every body has been sent twice more: allocators keep some, a leak would keep it all."""

CORE = "/api/v1/namespaces/default"
SERVING = "/apis/serving.knative.dev/v1/namespaces/default"
PLACES = (
    ("POST", f"{CORE}/configmaps"),
    ("POST", f"{SERVING}/services"),
    ("PUT", f"{CORE}/secrets/one"),
    ("PUT", f"{SERVING}/routes/one/status"),
    ("DELETE", f"{CORE}/configmaps/none"),
    ("POST", f"{CORE}/serviceaccounts/default/token"),
    ("POST", "/apis/authorization.k8s.io/v1/selfsubjectaccessreviews"),
)
PATCHED = (f"{CORE}/configmaps/one", f"{SERVING}/services/app")
PATCHES = (
    "application/json-patch+json",
    "application/merge-patch+json",
    "application/strategic-merge-patch+json",
    "application/apply-patch+yaml",
)


@pytest.fixture(scope="module")
def api(redis_server: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[ApiProcess]:
    client = redis.Redis.from_url(redis_server)
    client.flushall()
    client.close()
    with ApiProcess(redis_server, tmp_path_factory.mktemp("api")) as running:
        yield running


@pytest.fixture(scope="module")
def client(api: ApiProcess) -> Iterator[httpx.Client]:
    with httpx.Client(base_url=api.url, timeout=60) as http_client:
        pod = {"spec": {"containers": [{"image": "registry.example/hello:v1"}]}}
        service = {"apiVersion": "serving.knative.dev/v1", "kind": "Service", "spec": {"template": pod}}
        for path, body in (
            (f"{CORE}/configmaps", {"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "one"}}),
            (f"{SERVING}/services", {**service, "metadata": {"name": "app"}}),
        ):
            assert http_client.post(path, json=body).status_code == 201
        yield http_client


@pytest.fixture(autouse=True)
def _bounded(api: ApiProcess) -> Iterator[None]:
    """Every test holds the process to its memory."""
    yield
    assert api.alive(), api.log.read_text()[-2000:]
    assert api.peak_mib() < MOST_MIB


def send(client: httpx.Client, method: str, path: str, body: bytes, content_type: str) -> int:
    """The status code, which is none of the server's own faults; a refusal says why."""
    headers = {"Content-Type": content_type} if content_type else {}
    answer = client.request(method, path, content=body, headers=headers)
    assert answer.status_code < 500, f"{method} {path} {content_type} {body[:200]!r}: {answer.text[:1000]}"
    if answer.status_code >= 400:
        status = answer.json()
        assert status["kind"] == "Status"
        assert status["message"]
        assert len(answer.content) < 64 * 1024
    return answer.status_code


def everywhere(client: httpx.Client, body: bytes, *content_types: str) -> None:
    """Send it to every place, by every type."""
    for content_type in content_types:
        for method, path in PLACES:
            send(client, method, path, body, content_type)


JSON = list(hostile.json_bodies())
YAML = list(hostile.yaml_bodies())
PROTOBUF = list(hostile.protobuf_bodies())


def named(bodies: list[tuple[str, bytes]]) -> list[Any]:
    return [pytest.param(body, id=name) for name, body in bodies]


@pytest.mark.parametrize("body", named(JSON))
def test_hostile_json(client: httpx.Client, body: bytes) -> None:
    everywhere(client, body, "application/json", "")
    for path in PATCHED:
        for content_type in PATCHES:
            send(client, "PATCH", path, body, content_type)


@pytest.mark.parametrize("body", named(YAML))
def test_hostile_yaml(client: httpx.Client, body: bytes) -> None:
    everywhere(client, body, "application/yaml")
    for path in PATCHED:
        send(client, "PATCH", f"{path}?fieldManager=me", body, "application/apply-patch+yaml")


@pytest.mark.parametrize("body", named(PROTOBUF))
def test_hostile_protobuf(client: httpx.Client, body: bytes) -> None:
    everywhere(client, body, "application/vnd.kubernetes.protobuf")


@pytest.mark.parametrize(
    "content_type",
    [
        "application/json; charset=utf-16",
        "application/json; charset=" + "x" * 1000,
        "application/json;;;",
        "text/plain; charset=koi8-r",
        "multipart/form-data; boundary=",
        "application/" + "x" * 5000,
        "\xff\xfe",
        ";",
    ],
)
def test_wrong_content_types(client: httpx.Client, content_type: str) -> None:
    body = orjson.dumps({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "two"}})
    for method, path in (*PLACES, *(("PATCH", path) for path in PATCHED)):
        answer = client.request(method, path, content=body, headers=[(b"Content-Type", content_type.encode("latin-1"))])
        assert answer.status_code < 500, answer.text


def test_ten_million_bytes_are_refused_without_being_read(client: httpx.Client) -> None:
    def endless() -> Iterator[bytes]:
        for _ in range(160):
            yield b"x" * 65536

    for method, path in PLACES[:4]:
        assert send(client, method, path, b"x" * 10_000_000, "application/json") == 413
        try:
            assert client.request(method, path, content=endless()).status_code == 413
        except httpx.TransportError:
            # Who goes on sending after the answer may lose it with the connection.
            assert client.get("/readyz").status_code == 200


some = settings(
    max_examples=settings().max_examples * 4,
    derandomize=True,
    database=None,
    deadline=None,
    phases=[Phase.generate],
    suppress_health_check=list(HealthCheck),
)
text = st.text(max_size=20)
values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | text,
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(text, inner, max_size=4),
    max_leaves=20,
)


@some
@given(values, st.sampled_from(PLACES))
def test_random_json(client: httpx.Client, value: Any, place: tuple[str, str]) -> None:
    send(client, *place, json.dumps(value).encode(), "application/json")


@some
@given(st.data())
def test_mangled_protobuf(client: httpx.Client, data: st.DataObject) -> None:
    """One to four bytes are changed, taken out, put in or repeated in a body that was right."""
    plural, right = data.draw(st.sampled_from(sorted(hostile.protobufs().items())))
    body = bytearray(right)
    for _ in range(data.draw(st.integers(1, 4))):
        at = data.draw(st.integers(4, len(body) - 1))
        match data.draw(st.sampled_from(["change", "take", "put", "repeat", "cut"])):
            case "change":
                body[at] = data.draw(st.integers(0, 255))
            case "take":
                del body[at]
            case "put":
                body.insert(at, data.draw(st.integers(0, 255)))
            case "repeat":
                body[at:at] = body[at:]
            case _:
                del body[max(at, 6) :]
    send(client, "POST", f"{CORE}/{plural}", bytes(body), "application/vnd.kubernetes.protobuf")


@pytest.mark.parametrize(("plural", "body"), sorted(hostile.protobufs().items()), ids=sorted(hostile.protobufs()))
def test_what_was_mangled_is_taken_when_it_is_whole(client: httpx.Client, plural: str, body: bytes) -> None:
    client.delete(f"{CORE}/{plural}/one")
    assert send(client, "POST", f"{CORE}/{plural}", body, "application/vnd.kubernetes.protobuf") == 201


def test_nothing_of_it_stays_in_memory(api: ApiProcess, client: httpx.Client) -> None:
    def all_of_them() -> None:
        for content_type, bodies in (
            ("application/json", JSON),
            ("application/yaml", YAML),
            ("application/vnd.kubernetes.protobuf", PROTOBUF),
        ):
            for _, body in bodies:
                send(client, *PLACES[0], body, content_type)

    all_of_them()
    before = api.rss_mib()
    all_of_them()
    all_of_them()
    print(f"resident: {before:.0f} MiB before, {api.rss_mib():.0f} MiB after, {api.peak_mib():.0f} MiB at the most")
    assert api.rss_mib() < before + ROOM_MIB
