"""No spelling of a path, a host or a header gives a tenant access to another's objects."""

from collections.abc import AsyncIterator

import pytest

from knoll.process.settings import ApiSettings
from knoll.redis.client import connected
from knoll.store.redis_store import RedisStore
from knoll.values.kinds import CONFIG_MAP
from tests.component.api.conftest import Running, serving
from tests.component.api.raw import connected as raw_connection

RBAC = "rbac.authorization.k8s.io"
CROWN = b"Y3Jvd24="
"""What stands in the Secret of the other tenant."""
THEIRS = "/api/v1/namespaces/theirs/secrets"
MINE = "/api/v1/namespaces/mine"

pytestmark = pytest.mark.redis


@pytest.fixture
async def api(redis_url: str, settings: ApiSettings) -> AsyncIterator[Running]:
    """With a Secret in the namespace `theirs`."""
    async with connected(redis_url, "test") as redis:
        store = RedisStore(redis)
        async with serving(store, settings, redis) as running:
            for name in ("mine", "theirs"):
                made = await running.client.post(
                    "/api/v1/namespaces", json={"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": name}}
                )
                assert made.status_code == 201, made.text
            body = {"metadata": {"name": "crown"}, "data": {"jewel": CROWN.decode()}}
            assert (await running.client.post(THEIRS, json=body)).status_code == 201
            yield running
        await store.close()


@pytest.fixture
async def token(api: Running) -> str:
    """Of someone who has `edit` in the namespace `mine`."""
    accounts = f"{MINE}/serviceaccounts"
    assert (await api.client.post(accounts, json={"metadata": {"name": "me"}})).status_code == 201
    binding = {
        "metadata": {"name": "me"},
        "roleRef": {"apiGroup": RBAC, "kind": "ClusterRole", "name": "edit"},
        "subjects": [{"kind": "ServiceAccount", "namespace": "mine", "name": "me"}],
    }
    path = f"/apis/{RBAC}/v1/namespaces/mine/rolebindings"
    assert (await api.client.post(path, json=binding)).status_code == 201
    return str((await api.client.post(f"{accounts}/me/token", json={})).json()["status"]["token"])


async def ask(api: Running, token: str, target: str, *, method: str = "GET", fields: str = "", body: str = "") -> bytes:
    """The whole answer to a request that is sent as it is written here."""
    head = f"{method} {target} HTTP/1.1\r\n"
    if "host:" not in fields.lower():
        head += "Host: localhost\r\n"
    head += f"Authorization: Bearer {token}\r\nConnection: close\r\n{fields}"
    if body:
        head += f"Content-Type: application/json\r\nContent-Length: {len(body)}\r\n"
    async with raw_connection(api.url) as raw:
        await raw.send(head.encode("latin-1") + b"\r\n" + body.encode())
        return await raw.ended()


async def test_the_request_that_all_of_these_resemble_is_refused_to_me_and_answered_to_its_owner(
    api: Running, token: str
) -> None:
    assert b" 403 " in await ask(api, token, f"{THEIRS}/crown")
    assert CROWN in (await api.client.get(f"{THEIRS}/crown")).content
    assert b" 200 " in await ask(api, token, f"{MINE}/secrets")


@pytest.mark.parametrize(
    "target",
    [
        f"{THEIRS}/crown/",
        f"/{THEIRS}/crown",
        "/api//v1/namespaces/theirs/secrets/crown",
        "/api/v1//namespaces/theirs/secrets/crown",
        "/./api/v1/namespaces/theirs/secrets/crown",
        f"{MINE}/../theirs/secrets/crown",
        f"{MINE}/secrets/../../theirs/secrets/crown",
        f"{MINE}/%2e%2e/theirs/secrets/crown",
        f"{MINE}/secrets/%2e%2e%2f%2e%2e%2ftheirs%2fsecrets%2fcrown",
        f"{MINE}/secrets/..%2f..%2ftheirs%2fsecrets%2fcrown",
        f"{MINE}/secrets/..%5c..%5ctheirs%5csecrets%5ccrown",
        f"{MINE}/secrets/%252e%252e%252f%252e%252e%252ftheirs",
        "/api/v1/namespaces/mine%2f..%2ftheirs/secrets/crown",
        "/api/v1/namespaces/theirs%2fsecrets%2fcrown",
        "/api/v1/namespaces/mine%00theirs/secrets/crown",
        "/api/v1/namespaces/mine;theirs/secrets/crown",
        "/api/v1/namespaces/mine/secrets/crown?namespace=theirs",
        "/api/v1/namespaces/mine/secrets?fieldSelector=metadata.namespace%3Dtheirs",
        "/api/v1/namespaces/*/secrets/crown",
        "/api/v1/namespaces//secrets",
        "/api/v1/namespaces/%20/secrets",
        "/api/v1/namespaces/THEIRS/secrets/crown",
        "/API/V1/namespaces/theirs/secrets/crown",
        "/apis/v1/namespaces/theirs/secrets/crown",
        "/apis//v1/namespaces/theirs/secrets/crown",
        "/apis/core/v1/namespaces/theirs/secrets/crown",
        "/api/v1/secrets",
        "/api/v1/secrets/crown",
        "/api/v1/secrets?watch=true&timeoutSeconds=1",
        "/api/v1/watch/namespaces/theirs/secrets",
        "/api/v1/watch/secrets",
        f"{THEIRS}?watch=1&timeoutSeconds=1",
        f"{THEIRS}?watch=true&watch=false&timeoutSeconds=1",
        f"{THEIRS}?watch=TRUE&timeoutSeconds=1",
        "/api/v1/namespaces/theirs/secrets/crown/status",
        "/api/v1/namespaces/theirs/secrets/crown/log",
        "/api/v1/namespaces/theirs/secrets/crown/token",
        "/healthz/../api/v1/namespaces/theirs/secrets/crown",
        "/version/../api/v1/namespaces/theirs/secrets/crown",
        "/version%2f..%2fapi%2fv1%2fsecrets",
        "/uploads/../api/v1/namespaces/theirs/secrets/crown",
        "/openapi/v3/../../api/v1/namespaces/theirs/secrets/crown",
        f"{THEIRS}/crown#{MINE}/secrets",
        f"{THEIRS}/crown%23",
        f"{THEIRS}/crown%3f",
        f"http://localhost{THEIRS}/crown",
        f"http://localhost@localhost{THEIRS}/crown",
        f"https://localhost{THEIRS}/crown",
    ],
)
async def test_no_spelling_of_a_path_gets_at_it(api: Running, token: str, target: str) -> None:
    assert CROWN not in await ask(api, token, target)


@pytest.mark.parametrize(
    "fields",
    [
        f"Host: localhost{THEIRS}/crown?\r\n",
        f"Host: localhost#{THEIRS}\r\n",
        "Host: localhost\r\nHost: localhost\r\n",
        f"X-Original-URL: {THEIRS}/crown\r\n",
        f"X-Rewrite-URL: {THEIRS}/crown\r\n",
        f"X-Forwarded-Prefix: {THEIRS}\r\n",
        f"X-Forwarded-Uri: {THEIRS}/crown\r\nX-Forwarded-Host: localhost\r\n",
        "X-Remote-User: admin\r\nX-Remote-Group: system:masters\r\n",
        "X-Forwarded-User: admin\r\nX-Forwarded-Groups: system:masters\r\n",
        "X-Forwarded-For: 127.0.0.1\r\nForwarded: for=127.0.0.1\r\n",
        "Impersonate-User: admin\r\nImpersonate-Group: system:masters\r\n",
        "Impersonate-Group: system:masters\r\n",
        "Impersonate_User: admin\r\n",
        "Impersonate-User: system:serviceaccount:knative-serving:owner\r\n",
        "Impersonate-Extra-Scopes: all\r\n",
    ],
)
@pytest.mark.parametrize("target", [f"{MINE}/secrets/crown", f"{THEIRS}/crown"])
async def test_no_header_gets_at_it(api: Running, token: str, target: str, fields: str) -> None:
    answer = await ask(api, token, target, fields=fields)
    assert CROWN not in answer
    assert b" 200 " not in answer.partition(b"\r\n")[0]


@pytest.mark.parametrize("method", ["get", "Get", "HEAD", "OPTIONS", "TRACE", "PROPFIND", "CONNECT", "SEARCH", "QUERY"])
async def test_no_method_gets_at_it(api: Running, token: str, method: str) -> None:
    answer = await ask(api, token, f"{THEIRS}/crown", method=method)
    assert CROWN not in answer
    assert b" 200 " not in answer.partition(b"\r\n")[0]


@pytest.mark.parametrize(
    "fields", ["X-HTTP-Method-Override: DELETE\r\n", "X-HTTP-Method: DELETE\r\n", "_method: DELETE\r\n"]
)
async def test_no_header_makes_another_method(api: Running, token: str, fields: str) -> None:
    await ask(api, token, f"{THEIRS}/crown", fields=fields)
    assert (await api.client.get(f"{THEIRS}/crown")).status_code == 200


WRITES = [
    ("POST", f"{MINE}/configmaps", '{"metadata":{"name":"planted","namespace":"theirs"}}'),
    ("POST", f"{MINE}/configmaps", '{"metadata":{"name":"planted","generateName":"../theirs/x"},"namespace":"theirs"}'),
    ("POST", f"{MINE}/configmaps?namespace=theirs", '{"metadata":{"name":"planted","namespace":"theirs"}}'),
    ("POST", f"{MINE}/configmaps/../../theirs/configmaps", '{"metadata":{"name":"planted"}}'),
    ("POST", "/api/v1/namespaces/theirs/configmaps?dryRun=", '{"metadata":{"name":"planted"}}'),
    ("POST", "/api/v1/configmaps", '{"metadata":{"name":"planted","namespace":"theirs"}}'),
    ("PUT", f"{MINE}/configmaps/planted", '{"metadata":{"name":"planted","namespace":"theirs"}}'),
    ("PUT", f"{MINE}/configmaps/..%2f..%2ftheirs%2fconfigmaps%2fplanted", '{"metadata":{"name":"planted"}}'),
    ("POST", f"{MINE}/configmaps", '{"metadata":{"name":"../theirs/planted"}}'),
    ("POST", f"{MINE}/configmaps", '{"metadata":{"name":"theirs/planted"}}'),
]


@pytest.mark.parametrize(("method", "target", "body"), WRITES)
async def test_nothing_is_written_to_another_namespace(
    api: Running, token: str, method: str, target: str, body: str
) -> None:
    await ask(api, token, target, method=method, body=body)
    listed = await api.store.list(CONFIG_MAP.id, "theirs")
    assert [item["metadata"]["name"] for item in listed.items if item["metadata"]["name"] != "kube-root-ca.crt"] == []
