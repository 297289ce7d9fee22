"""Tokens of ServiceAccounts and what they allow, with the real kubectl and on real sockets."""

import shutil
from collections.abc import AsyncIterator
from pathlib import Path

import httpx
import pytest

from knoll.auth import token_key, tokens
from knoll.process.settings import ApiSettings
from knoll.redis.client import RedisClient, connected
from knoll.store.redis_store import RedisStore
from knoll.values.kinds import SERVICE_ACCOUNT
from tests.component.api.conftest import CONFIG_MAPS, Kubectl, Running, serving
from tests.conftest import need

SECRETS = "/api/v1/namespaces/default/secrets"
BINDINGS = "/apis/rbac.authorization.k8s.io/v1/namespaces/default/rolebindings"
ROBOT = "system:serviceaccount:default:robot"

pytestmark = [pytest.mark.kubectl, pytest.mark.redis]


@pytest.fixture
async def redis(redis_url: str) -> AsyncIterator[RedisClient]:
    async with connected(redis_url, "test") as redis:
        yield redis


@pytest.fixture
async def api(redis: RedisClient, settings: ApiSettings) -> AsyncIterator[Running]:
    store = RedisStore(redis)
    async with serving(store, settings, redis) as running:
        yield running
    await store.close()


@pytest.fixture
async def kubectl(api: Running, tmp_path: Path) -> Kubectl:
    need("KUBECTL", shutil.which("kubectl") is not None)
    (tmp_path / "home").mkdir()
    (tmp_path / "home" / "config").touch()
    kubectl = Kubectl("kubectl", api.url, tmp_path / "home")
    await kubectl("create", "serviceaccount", "robot")
    return kubectl


async def token_of(kubectl: Kubectl, *options: str) -> dict[str, str]:
    token = (await kubectl("create", "token", "robot", *options)).strip()
    return {"Authorization": f"Bearer {token}"}


async def code(api: Running, path: str, headers: dict[str, str], body: object = None) -> int:
    return (await api.client.request("POST" if body else "GET", path, headers=headers, json=body)).status_code


async def test_a_bound_service_account_has_the_rights_of_its_role_and_is_refused_as_on_kubernetes(
    api: Running, kubectl: Kubectl
) -> None:
    robot = await token_of(kubectl)
    refused = await api.client.get(SECRETS, headers=robot)
    assert refused.status_code == 403
    assert refused.json()["reason"] == "Forbidden"
    assert refused.json()["message"] == (
        f'secrets is forbidden: User "{ROBOT}" cannot list resource "secrets" in API group "" '
        'in the namespace "default"'
    )
    assert await code(api, CONFIG_MAPS, robot) == 403
    await kubectl("create", "rolebinding", "see", "--clusterrole=view", "--serviceaccount=default:robot")
    assert await code(api, CONFIG_MAPS, robot) == 200
    assert await code(api, SECRETS, robot) == 403
    assert await code(api, CONFIG_MAPS, robot, {"metadata": {"name": "c"}}) == 403
    assert await code(api, "/api/v1/namespaces/knative-serving/configmaps", robot) == 403
    await kubectl("create", "clusterrolebinding", "do", "--clusterrole=edit", "--serviceaccount=default:robot")
    assert await code(api, CONFIG_MAPS, robot, {"metadata": {"name": "c"}}) == 201
    assert await code(api, "/api/v1/namespaces/knative-serving/configmaps", robot) == 200
    assert await code(api, BINDINGS, robot) == 403
    await kubectl("delete", "clusterrolebinding", "do")
    assert await code(api, SECRETS, robot) == 403


async def test_an_admin_of_a_namespace_binds_its_roles_and_no_more(api: Running, kubectl: Kubectl) -> None:
    await kubectl("create", "rolebinding", "rule", "--clusterrole=admin", "--serviceaccount=default:robot")
    robot = await token_of(kubectl)

    def body(role: str) -> dict[str, object]:
        return {"metadata": {"name": role}, "roleRef": {"kind": "ClusterRole", "name": role}}

    assert await code(api, BINDINGS, robot, body("edit")) == 201
    assert await code(api, BINDINGS, robot, body("cluster-admin")) == 403
    everywhere = "/apis/rbac.authorization.k8s.io/v1/clusterrolebindings"
    assert await code(api, everywhere, robot, body("view")) == 403


async def test_creator_is_the_user_of_the_token(api: Running, kubectl: Kubectl) -> None:
    await kubectl("create", "rolebinding", "do", "--clusterrole=edit", "--serviceaccount=default:robot")
    body = {
        "apiVersion": "serving.knative.dev/v1",
        "kind": "Service",
        "metadata": {"name": "app"},
        "spec": {"template": {"spec": {"containers": [{"image": "example/app"}]}}},
    }
    path = "/apis/serving.knative.dev/v1/namespaces/default/services"
    answer = await api.client.post(path, json=body, headers=await token_of(kubectl))
    assert answer.json()["metadata"]["annotations"] == {
        "serving.knative.dev/creator": ROBOT,
        "serving.knative.dev/lastModifier": ROBOT,
    }


async def test_reviews_answer_for_the_requesting_user(api: Running, kubectl: Kubectl) -> None:
    robot = await token_of(kubectl)
    review = await api.client.post("/apis/authentication.k8s.io/v1/selfsubjectreviews", headers=robot, json={})
    assert review.json()["status"]["userInfo"]["username"] == ROBOT
    await kubectl("create", "rolebinding", "see", "--clusterrole=view", "--serviceaccount=default:robot")
    path = "/apis/authorization.k8s.io/v1/selfsubjectaccessreviews"
    for verb, resource, namespace, may in (
        ("list", "configmaps", "default", True),
        ("list", "secrets", "default", False),
        ("create", "configmaps", "default", False),
        ("list", "configmaps", "kube-system", False),
    ):
        asked = {"verb": verb, "resource": resource, "namespace": namespace}
        answer = await api.client.post(path, headers=robot, json={"spec": {"resourceAttributes": asked}})
        assert answer.json()["status"]["allowed"] is may, asked
    assert (await kubectl("auth", "can-i", "create", "secrets")).strip() == "yes"
    assert "admin" in await kubectl("auth", "whoami")


async def test_invalid_tokens_are_rejected(api: Running, kubectl: Kubectl, redis: RedisClient) -> None:
    account = await api.store.get(SERVICE_ACCOUNT.id, "default", "robot")
    uid, key = account["metadata"]["uid"], await token_key.shared_key(redis)
    old = tokens.mint(key, namespace="default", name="robot", uid=uid, now=1_000_000_000)
    elsewhere = await token_of(kubectl, "--audience", "vault")
    for headers in (
        {"Authorization": f"Bearer {old}"},
        elsewhere,
        {"Authorization": "Bearer x"},
        {"Authorization": "x"},
    ):
        answer = await api.client.get(CONFIG_MAPS, headers=headers)
        assert (answer.status_code, answer.json()["message"]) == (401, "Unauthorized")


async def test_the_end_of_a_service_account_is_the_end_of_its_tokens(api: Running, kubectl: Kubectl) -> None:
    robot = await token_of(kubectl)
    assert await code(api, "/version", robot) == 200
    await kubectl("delete", "serviceaccount", "robot")
    assert await code(api, "/version", robot) == 401
    await kubectl("create", "serviceaccount", "robot")
    assert await code(api, "/version", robot) == 401
    assert await code(api, "/version", await token_of(kubectl, "--duration", "20m")) == 200


async def test_only_what_exists_can_be_bound_and_asked_for(api: Running, kubectl: Kubectl) -> None:
    other = await kubectl.run("create", "rolebinding", "x", "--role=mine", "--user=ann")
    assert other.code != 0
    assert "only the built-in ClusterRoles can be bound here: view, edit, admin, cluster-admin" in other.err
    short = await kubectl.run("create", "token", "robot", "--duration", "1m")
    assert short.code != 0
    assert "must be from 600" in short.err


async def test_a_token_needs_no_more_than_a_client_that_sends_it(api: Running, kubectl: Kubectl) -> None:
    async with httpx.AsyncClient(base_url=api.url, headers=await token_of(kubectl)) as client:
        assert (await client.get("/apis")).status_code == 200
        assert (await client.get("/metrics")).status_code == 403
