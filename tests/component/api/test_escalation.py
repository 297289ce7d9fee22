"""No one gets more rights than they have: by tokens, bindings, code that runs as a ServiceAccount, or impersonation."""

from collections.abc import AsyncIterator

import jwt
import pytest

from knoll.config.platform import PlatformConfig
from knoll.process.settings import ApiSettings
from knoll.redis.client import connected
from knoll.store.redis_store import RedisStore
from knoll.values.json import Json
from knoll.values.kinds import CLUSTER_ROLE_BINDING, CONFIG_MAP, ROLE_BINDING, SERVICE_ACCOUNT, Kind
from tests.component.api.conftest import SERVICES, Running, serving

RBAC = "rbac.authorization.k8s.io"
ACCOUNTS = "/api/v1/namespaces/default/serviceaccounts"
BINDINGS = f"/apis/{RBAC}/v1/namespaces/default/rolebindings"
MERGE = {"Content-Type": "application/merge-patch+json"}
APPLY = {"Content-Type": "application/apply-patch+yaml"}

pytestmark = pytest.mark.redis


@pytest.fixture
async def api(redis_url: str, settings: ApiSettings) -> AsyncIterator[Running]:
    async with connected(redis_url, "test") as redis:
        store = RedisStore(redis)
        async with serving(store, settings, redis) as running:
            yield running
        await store.close()


async def account(api: Running, name: str, *roles: str, where: str = "default") -> dict[str, str]:
    """A ServiceAccount in `default` with roles in a namespace, or everywhere for ""; the headers of its token."""
    made = await api.client.post(ACCOUNTS, json={"metadata": {"name": name}})
    assert made.status_code == 201, made.text
    for role in roles:
        await bind(api, role, name, where)
    answer = await api.client.post(f"{ACCOUNTS}/{name}/token", json={})
    assert answer.status_code == 201, answer.text
    return {"Authorization": f"Bearer {answer.json()['status']['token']}"}


async def bind(api: Running, role: str, name: str, where: str = "default") -> None:
    path = f"/apis/{RBAC}/v1/" + (f"namespaces/{where}/rolebindings" if where else "clusterrolebindings")
    answer = await api.client.post(path, json=binding(role, name))
    assert answer.status_code == 201, answer.text


def binding(role: str, subject: str) -> Json:
    return {
        "metadata": {"name": f"{subject}-{role}"},
        "roleRef": {"apiGroup": RBAC, "kind": "ClusterRole", "name": role},
        "subjects": [{"kind": "ServiceAccount", "namespace": "default", "name": subject}],
    }


@pytest.mark.parametrize(
    ("held", "other", "where", "code"),
    [
        ("edit", (), "default", 201),
        ("edit", ("view",), "default", 201),
        ("edit", ("edit",), "default", 201),
        ("edit", ("admin",), "default", 403),
        ("edit", ("view", "admin"), "default", 403),
        ("edit", ("cluster-admin",), "default", 403),
        ("edit", ("view",), "", 403),
        ("edit", ("view",), "kube-public", 403),
        ("edit", ("cluster-admin",), "", 403),
        ("admin", ("admin",), "default", 201),
        ("admin", ("cluster-admin",), "default", 403),
        ("admin", ("edit",), "", 403),
    ],
)
async def test_a_token_is_given_out_only_for_rights_that_the_user_has(
    api: Running, held: str, other: tuple[str, ...], where: str, code: int
) -> None:
    user = await account(api, "user", held)
    await account(api, "boss", *other, where=where)
    answer = await api.client.post(f"{ACCOUNTS}/boss/token", json={}, headers=user)
    assert answer.status_code == code, answer.text
    if code == 403:
        assert answer.json()["reason"] == "Forbidden"
        assert "RBAC permissions not currently held" in answer.json()["message"]


async def test_a_token_for_oneself_is_always_given_out(api: Running) -> None:
    user = await account(api, "user", "edit")
    await bind(api, "view", "user", "kube-public")
    assert (await api.client.post(f"{ACCOUNTS}/user/token", json={}, headers=user)).status_code == 201


async def test_edit_where_the_owner_lives_gives_no_token_of_the_owner(api: Running) -> None:
    user = await account(api, "user", "edit", where="knative-serving")
    path = "/api/v1/namespaces/knative-serving/serviceaccounts/owner/token"
    assert (await api.client.post(path, json={}, headers=user)).status_code == 403


async def test_an_account_that_is_bound_before_it_exists_gives_its_maker_no_token(api: Running) -> None:
    await bind(api, "cluster-admin", "later", "")
    user = await account(api, "user", "edit")
    made = await api.client.post(ACCOUNTS, json={"metadata": {"name": "later"}}, headers=user)
    assert made.status_code == 201
    assert (await api.client.post(f"{ACCOUNTS}/later/token", json={}, headers=user)).status_code == 403


async def test_a_secret_of_the_kind_of_tokens_is_filled_with_none(api: Running) -> None:
    user = await account(api, "user", "edit")
    await account(api, "boss", "admin")
    body = {
        "metadata": {"name": "t", "annotations": {"kubernetes.io/service-account.name": "boss"}},
        "type": "kubernetes.io/service-account-token",
    }
    path = "/api/v1/namespaces/default/secrets"
    assert (await api.client.post(path, json=body, headers=user)).status_code == 201
    assert "data" not in (await api.client.get(f"{path}/t", headers=user)).json()


@pytest.mark.parametrize(
    ("held", "where", "role", "code"),
    [
        ("admin", "default", "view", 201),
        ("admin", "default", "admin", 201),
        ("admin", "default", "cluster-admin", 403),
        ("cluster-admin", "default", "cluster-admin", 201),
        ("edit", "default", "view", 403),
        ("admin", "", "admin", 201),
        ("admin", "", "cluster-admin", 403),
    ],
)
async def test_a_role_is_bound_only_by_users_with_its_rights(
    api: Running, held: str, where: str, role: str, code: int
) -> None:
    user = await account(api, "user", held, where=where)
    await account(api, "friend")
    answer = await api.client.post(BINDINGS, json=binding(role, "friend"), headers=user)
    assert answer.status_code == code, answer.text


@pytest.mark.parametrize("way", ["put", "merge", "apply", "json"])
async def test_users_with_fewer_rights_cannot_add_subjects_to_a_binding(api: Running, way: str) -> None:
    user = await account(api, "user", "admin")
    await account(api, "boss", "cluster-admin")
    path, before = f"{BINDINGS}/boss-cluster-admin", binding("cluster-admin", "boss")
    wider = {**before, "subjects": [*before["subjects"], {"kind": "Group", "name": "system:authenticated"}]}
    match way:
        case "put":
            answer = await api.client.put(path, json=wider, headers=user)
        case "merge":
            answer = await api.client.patch(path, json={"subjects": wider["subjects"]}, headers={**user, **MERGE})
        case "apply":
            whole = {"apiVersion": f"{RBAC}/v1", "kind": "RoleBinding", **wider}
            asked = {"fieldManager": "me", "force": "true"}
            answer = await api.client.patch(path, json=whole, headers={**user, **APPLY}, params=asked)
        case _:
            added = [{"op": "add", "path": "/subjects/-", "value": wider["subjects"][1]}]
            headers = {**user, "Content-Type": "application/json-patch+json"}
            answer = await api.client.patch(path, json=added, headers=headers)
    assert answer.status_code == 403, answer.text
    assert "attempting to grant RBAC permissions not currently held" in answer.json()["message"]
    stored = await api.store.get(ROLE_BINDING.id, "default", "boss-cluster-admin")
    assert [subject["name"] for subject in stored["subjects"]] == ["boss"]


async def test_users_with_fewer_rights_can_change_labels_of_a_binding(api: Running) -> None:
    user = await account(api, "user", "admin")
    await account(api, "boss", "cluster-admin")
    labels = {"metadata": {"labels": {"a": "b"}}}
    answer = await api.client.patch(f"{BINDINGS}/boss-cluster-admin", json=labels, headers={**user, **MERGE})
    assert answer.status_code == 200


async def test_rights_in_one_namespace_are_no_rights_to_bind_everywhere(api: Running) -> None:
    user = await account(api, "user", "cluster-admin")
    path = f"/apis/{RBAC}/v1/clusterrolebindings"
    assert (await api.client.post(path, json=binding("view", "user"), headers=user)).status_code == 403
    assert not [body for body in (await api.store.list(CLUSTER_ROLE_BINDING.id)).items if "user" in str(body)]


@pytest.mark.parametrize(
    ("acted_as", "code"),
    [("system:serviceaccount:default:peer", 200), ("system:serviceaccount:default:boss", 403), ("ann", 403)],
)
async def test_impersonation_gives_no_more_rights(api: Running, acted_as: str, code: int) -> None:
    user = await account(api, "user", "cluster-admin")
    await account(api, "boss", "view", where="")
    await account(api, "peer", "edit")
    answer = await api.client.get("/api/v1/namespaces/default/secrets", headers={**user, "Impersonate-User": acted_as})
    assert answer.status_code == code, answer.text


def with_token(name: str, account_name: str, image: str = "example/app") -> Json:
    volume = {"name": "t", "projected": {"sources": [{"serviceAccountToken": {"path": "token"}}]}}
    container = {"image": image, "volumeMounts": [{"name": "t", "mountPath": "/t", "readOnly": True}]}
    return {
        "apiVersion": "serving.knative.dev/v1",
        "kind": "Service",
        "metadata": {"name": name},
        "spec": {
            "template": {
                "spec": {"serviceAccountName": account_name, "containers": [container], "volumes": [volume]},
            }
        },
    }


@pytest.mark.parametrize(("name", "code"), [("peer", 201), ("boss", 403)])
@pytest.mark.parametrize("way", ["create", "apply"])
async def test_code_gets_no_token_with_more_rights_than_its_deployer_has(
    api: Running, way: str, name: str, code: int
) -> None:
    user = await account(api, "user", "edit")
    await account(api, "peer", "view")
    await account(api, "boss", "admin")
    body = with_token("app", name)
    if way == "create":
        answer = await api.client.post(SERVICES, json=body, headers=user)
    else:
        asked = {"fieldManager": "me"}
        answer = await api.client.patch(f"{SERVICES}/app", json=body, headers={**user, **APPLY}, params=asked)
    assert answer.status_code == code, answer.text


async def test_other_code_is_not_put_where_a_token_of_more_rights_is(api: Running) -> None:
    user = await account(api, "user", "edit")
    await account(api, "boss", "admin")
    assert (await api.client.post(SERVICES, json=with_token("app", "boss"))).status_code == 201
    put = await api.client.put(f"{SERVICES}/app", json=with_token("app", "boss", "evil/app"), headers=user)
    assert put.status_code == 403, put.text
    labels = {"metadata": {"labels": {"a": "b"}}}
    assert (await api.client.patch(f"{SERVICES}/app", json=labels, headers={**user, **MERGE})).status_code == 200


async def test_a_service_runs_as_any_account_of_its_namespace_when_it_takes_no_token(api: Running) -> None:
    user = await account(api, "user", "edit")
    await account(api, "boss", "admin")
    body = with_token("app", "boss")
    del body["spec"]["template"]["spec"]["volumes"]
    del body["spec"]["template"]["spec"]["containers"][0]["volumeMounts"]
    assert (await api.client.post(SERVICES, json=body, headers=user)).status_code == 201


@pytest.mark.parametrize(
    ("asked", "given"), [(3600, 3600), (365 * 86400, 365 * 86400), (366 * 86400, 365 * 86400), (2**32, 365 * 86400)]
)
async def test_no_token_lives_longer_than_the_maximum(api: Running, asked: int, given: int) -> None:
    await account(api, "user")
    body = {"spec": {"expirationSeconds": asked}}
    answer = (await api.client.post(f"{ACCOUNTS}/user/token", json=body)).json()
    assert answer["spec"]["expirationSeconds"] == given
    claims = jwt.decode(answer["status"]["token"], options={"verify_signature": False})
    assert claims["exp"] - claims["iat"] == given


@pytest.mark.parametrize(("kind", "name"), [(CONFIG_MAP, "config-security"), (SERVICE_ACCOUNT, "owner")])
async def test_what_the_defences_stand_on_is_planted(api: Running, kind: Kind, name: str) -> None:
    assert (await api.store.get(kind.id, "knative-serving", name))["metadata"]["name"] == name


async def test_the_maximum_is_read_from_its_config_map(redis_url: str, settings: ApiSettings) -> None:
    config = PlatformConfig().with_config_map("config-security", {"max-token-expiration": "1h"})
    async with connected(redis_url, "test") as redis:
        store = RedisStore(redis)
        async with serving(store, settings, redis, config=lambda: config) as running:
            await account(running, "user")
            body = {"spec": {"expirationSeconds": 7200}}
            answer = (await running.client.post(f"{ACCOUNTS}/user/token", json=body)).json()
            assert answer["spec"]["expirationSeconds"] == 3600
        await store.close()
