"""How machines join: tokens, certificates, members, and what each credential does not permit."""

import asyncio
import base64
import json
import time
from collections.abc import AsyncIterator
from datetime import UTC, datetime
from pathlib import Path

import httpx
import pytest
from cryptography import x509

from api import authority
from knoll import __version__
from knoll.auth import certificates, join_tokens, key_files, process_tokens
from knoll.auth.join_tokens import JoinToken
from knoll.cluster.managers import MANAGER
from knoll.cluster.members import KEY_ANNOTATION
from knoll.cluster.node_folder import NodeFolder
from knoll.messages.nodes import NODES, Node
from knoll.process.settings import ApiSettings
from knoll.redis.client import RedisClient, connected
from knoll.redis.encryption import SealedError
from knoll.store.redis_store import RedisStore
from knoll.tables.redis_tables import RedisTable
from knoll.values import versions
from tests.component.api.conftest import Running, serving

pytestmark = pytest.mark.redis
ACCOUNTS = "/api/v1/namespaces/kube-system/serviceaccounts"
BUNDLE = b'{"keys": "as it is"}'


@pytest.fixture
async def redis(redis_url: str) -> AsyncIterator[RedisClient]:
    async with connected(redis_url, "test") as client:
        yield client


@pytest.fixture
async def api(redis: RedisClient, tmp_path: Path) -> AsyncIterator[Running]:
    key_files.prepare(tmp_path / "keys")
    settings = ApiSettings(uploads_dir=tmp_path / "uploads", keys_dir=tmp_path / "keys" / "api")
    store = RedisStore(redis, keyring=settings.keyring)
    await authority.synchronise(store, tmp_path / "state", datetime.now(UTC))
    async with serving(store, settings, redis) as running:
        yield running
    await store.close()


async def issue(api: Running, seconds: float = 600.0, image: str = "", role: str = "") -> JoinToken:
    """What `knoll node join-command` does."""
    token = JoinToken.fresh()
    body = {
        "apiVersion": "v1",
        "kind": "Secret",
        "type": join_tokens.SECRET_TYPE,
        "metadata": {"name": token.object_name},
        "data": token.data(BUNDLE, time.time() + seconds, image, role=role),
    }
    answer = await api.client.post("/api/v1/namespaces/kube-system/secrets", json=body)
    assert answer.status_code == 201, answer.text
    return token


def bearer(token: object) -> dict[str, str]:
    return {"Authorization": f"Bearer {token}"}


async def join(
    api: Running, token: JoinToken, folder: NodeFolder, name: str, address: str = "192.0.2.9"
) -> httpx.Response:
    body = {"request": folder.request(name[:50]).decode(), "address": address}
    return await api.client.post(f"/cluster/nodes/{name}", json=body, headers=bearer(token))


async def joined(api: Running, folder: NodeFolder, name: str) -> None:
    answer = await join(api, await issue(api), folder, name)
    assert answer.status_code == 201, answer.text
    issued = answer.json()
    folder.keep(issued["authority"].encode(), issued["certificate"].encode(), issued["token"])


async def test_a_machine_of_a_distant_version_cannot_join(api: Running, redis: RedisClient, tmp_path: Path) -> None:
    folder, token = NodeFolder(tmp_path / "n2"), await issue(api)
    major, minor = versions.minor_version(__version__) or (0, 0)

    async def attempt(version: str) -> httpx.Response:
        body = {"request": folder.request("n2").decode(), "version": version}
        return await api.client.post("/cluster/nodes/n2", json=body, headers=bearer(token))

    refused = await attempt(f"v{major}.{minor + 2}.0")
    assert refused.status_code == 409
    assert "upgrade one minor version at a time" in refused.json()["message"]
    assert "the API runs" in refused.json()["message"]
    # A machine that runs counts, too: two machines would differ by two.
    entry = Node("n3", "192.0.2.3", 7444, 7443, 1.0, 1, f"v{major}.{minor - 1}.0")
    table = RedisTable(redis, NODES, Node)
    await table.put("n3", entry)
    assert "n3 runs" in (await attempt(f"v{major}.{minor + 1}.0")).json()["message"]
    await table.remove("n3")
    assert (await attempt(f"v{major}.{minor + 1}.0")).status_code == 201


async def test_a_machine_with_a_token_gets_a_certificate_and_the_keys(api: Running, tmp_path: Path) -> None:
    token, folder = await issue(api), NodeFolder(tmp_path / "n2")
    answer = await join(api, token, folder, "n2")
    assert answer.status_code == 201
    issued = answer.json()
    certificate = x509.load_pem_x509_certificate(issued["certificate"].encode())
    assert certificates.node_name(certificate) == "n2"
    certificate.verify_directly_issued_by(x509.load_pem_x509_certificate(issued["authority"].encode()))
    assert token.open(base64.b64decode(issued["bundle"])) == BUNDLE
    folder.keep(issued["authority"].encode(), issued["certificate"].encode(), issued["token"])
    assert folder.name == "n2"
    assert folder.is_valid(datetime.now(UTC))
    members = await api.client.get("/cluster/nodes", headers=bearer(folder.token))
    assert members.json() == {"nodes": [{"name": "n2", "address": ""}], "managers": []}


async def test_only_a_token_for_managers_makes_a_manager(api: Running, tmp_path: Path) -> None:
    managers, workers = await issue(api, role=MANAGER), await issue(api)
    answers = await asyncio.gather(
        *(join(api, managers, NodeFolder(tmp_path / f"n{n}"), f"n{n}", f"192.0.2.{n}") for n in (1, 2, 3)),
        join(api, workers, NodeFolder(tmp_path / "n4"), "n4"),
    )
    assert {answer.status_code for answer in answers} == {201}
    # The slots are different, although they join at the same time; a repeated join keeps them.
    again = await join(api, managers, NodeFolder(tmp_path / "n1"), "n1", "192.0.2.1")
    listed = again.json()["managers"]
    assert sorted(each["slot"] for each in listed) == [1, 2, 3]
    assert {each["name"]: each["address"] for each in listed} == {f"n{n}": f"192.0.2.{n}" for n in (1, 2, 3)}
    token = again.json()["token"]
    assert (await api.client.get("/cluster/nodes", headers=bearer(token))).json()["managers"] == listed
    # Its slot is free once a manager is removed.
    (slot,) = [each["slot"] for each in listed if each["name"] == "n2"]
    assert (await api.client.delete(f"{ACCOUNTS}/node-n2")).is_success
    fifth = await join(api, managers, NodeFolder(tmp_path / "n5"), "n5", "192.0.2.5")
    assert {each["name"]: each["slot"] for each in fifth.json()["managers"]}["n5"] == slot


@pytest.mark.parametrize("address", ["", "n2.example.org"])
async def test_a_manager_without_an_address_is_refused(api: Running, tmp_path: Path, address: str) -> None:
    refused = await join(api, await issue(api, role=MANAGER), NodeFolder(tmp_path / "n2"), "n2", address)
    assert (refused.status_code, "address" in refused.json()["message"]) == (400, True)


async def test_the_store_does_not_reveal_what_a_machine_gets(api: Running, redis: RedisClient) -> None:
    token = await issue(api)
    read = await api.client.get(f"/api/v1/namespaces/kube-system/secrets/{token.object_name}")
    assert token.secret not in read.text
    sealed = base64.b64decode(read.json()["data"]["bundle"])
    assert BUNDLE not in sealed
    with pytest.raises(SealedError):
        JoinToken(token.id, "0" * 32).open(sealed)


@pytest.mark.parametrize("case", ["none", "wrong secret", "unknown", "expired", "no token", "deleted", "basic"])
async def test_without_a_valid_token_no_machine_joins(api: Running, tmp_path: Path, case: str) -> None:
    token = await issue(api, seconds=-1 if case == "expired" else 600)
    headers = {
        "none": {},
        "wrong secret": bearer(JoinToken(token.id, "0" * 32)),
        "unknown": bearer(JoinToken.fresh()),
        "no token": bearer("../../default/x"),
        "basic": {"Authorization": f"Basic {token}"},
    }.get(case, bearer(token))
    if case == "deleted":
        await api.client.delete(f"/api/v1/namespaces/kube-system/secrets/{token.object_name}")
    body = {"request": NodeFolder(tmp_path / "n2").request("n2").decode()}
    answer = await api.client.post("/cluster/nodes/n2", json=body, headers=headers)
    assert (answer.status_code, answer.json()["reason"]) == (401, "Unauthorized")
    assert (await api.client.get("/cluster/images", headers=headers)).status_code == 401
    assert (await api.client.get(f"{ACCOUNTS}/node-n2")).status_code == 404


async def test_a_stolen_token_cannot_take_the_name_of_another_machine(api: Running, tmp_path: Path) -> None:
    first = NodeFolder(tmp_path / "1")
    await joined(api, first, "n2")
    token = await issue(api)
    taken = await join(api, token, NodeFolder(tmp_path / "2"), "n2")
    assert (taken.status_code, taken.json()["reason"]) == (409, "Conflict")
    assert "knoll node rm n2" in taken.json()["message"]
    # The machine itself may repeat its request, for example when it did not get the response.
    assert (await join(api, token, first, "n2")).status_code == 201


@pytest.mark.parametrize("name", ["knoll", "N2", "-n2", "n_2", "a" * 60, "%2e%2e"])
async def test_invalid_node_names_are_refused(api: Running, tmp_path: Path, name: str) -> None:
    answer = await join(api, await issue(api), NodeFolder(tmp_path), name)
    assert answer.status_code in (400, 404, 405)
    assert len((await api.client.get(ACCOUNTS)).json()["items"]) == 1


@pytest.mark.parametrize("body", ["", "[]", "{}", '{"request": 1}', '{"request": "x"}', '{"request": ""}'])
async def test_requests_without_a_signing_request_are_refused(api: Running, body: str) -> None:
    headers = {**bearer(await issue(api)), "Content-Type": "application/json"}
    answer = await api.client.post("/cluster/nodes/n2", content=body, headers=headers)
    assert answer.status_code == 400
    assert (await api.client.get(f"{ACCOUNTS}/node-n2")).status_code == 404


async def test_a_machine_renews_its_own_certificate_for_its_own_key_only(api: Running, tmp_path: Path) -> None:
    first, second = NodeFolder(tmp_path / "1"), NodeFolder(tmp_path / "2")
    await joined(api, first, "n1")
    await joined(api, second, "n2")
    own = {"request": first.request("n1").decode()}
    renewed = await api.client.post("/cluster/nodes/n1/certificate", json=own, headers=bearer(first.token))
    assert renewed.status_code == 201
    assert "bundle" not in renewed.json()
    other = await api.client.post("/cluster/nodes/n2/certificate", json=own, headers=bearer(first.token))
    assert other.status_code == 401
    # With a stolen token, but without the key, no certificate is issued.
    fresh = {"request": NodeFolder(tmp_path / "3").request("n1").decode()}
    stolen = await api.client.post("/cluster/nodes/n1/certificate", json=fresh, headers=bearer(first.token))
    assert stolen.status_code == 409


async def test_the_token_of_a_machine_has_no_rights_to_objects(api: Running, tmp_path: Path) -> None:
    folder = NodeFolder(tmp_path / "1")
    await joined(api, folder, "n1")
    for path in ("/api/v1/nodes", "/api/v1/secrets", ACCOUNTS, "/api/v1/pods", "/cluster/images"):
        refused = await api.client.get(path, headers=bearer(folder.token))
        assert refused.status_code in (401, 403), path


async def test_a_machine_that_is_removed_is_no_longer_a_member(api: Running, tmp_path: Path) -> None:
    folder, other = NodeFolder(tmp_path / "1"), NodeFolder(tmp_path / "2")
    await joined(api, folder, "n1")
    await joined(api, other, "n2")
    assert (await api.client.delete(f"{ACCOUNTS}/node-n1")).status_code == 200
    assert (await api.client.get("/cluster/nodes", headers=bearer(folder.token))).status_code == 401
    own = {"request": folder.request("n1").decode()}
    renewed = await api.client.post("/cluster/nodes/n1/certificate", json=own, headers=bearer(folder.token))
    assert renewed.status_code == 401
    members = await api.client.get("/cluster/nodes", headers=bearer(other.token))
    assert [each["name"] for each in members.json()["nodes"]] == ["n2"]


async def test_tokens_of_other_service_accounts_are_refused(api: Running) -> None:
    for name in ("node-n1", "other"):
        body = {"apiVersion": "v1", "kind": "ServiceAccount", "metadata": {"name": name}}
        await api.client.post(ACCOUNTS, json=body)
        requested = {"apiVersion": "authentication.k8s.io/v1", "kind": "TokenRequest", "spec": {}}
        made = await api.client.post(f"{ACCOUNTS}/{name}/token", json=requested)
        headers = bearer(made.json()["status"]["token"])
        assert (await api.client.get("/cluster/nodes", headers=headers)).status_code == 401
    account = (await api.client.get(f"{ACCOUNTS}/node-n1")).json()
    assert KEY_ANNOTATION not in (account["metadata"].get("annotations") or {})


async def test_the_images_of_a_token_are_those_that_were_uploaded_for_it(api: Running) -> None:
    sent = await api.client.post("/namespaces/kube-system/uploads", content=b"images" * 1000)
    token = await issue(api, image=sent.json()["id"])
    got = await api.client.get("/cluster/images", headers=bearer(token))
    assert (got.status_code, got.content) == (200, b"images" * 1000)
    assert (await api.client.get("/cluster/images", headers=bearer(await issue(api)))).status_code == 404


async def test_builders_get_sources_with_the_key_that_processes_share(api: Running, tmp_path: Path) -> None:
    sent = (await api.client.post("/namespaces/default/uploads", content=b"source" * 1000)).json()["id"]
    path, keyring = f"/cluster/uploads/default/{sent}", api.settings.keyring
    good = process_tokens.mint_shared(keyring, f"upload default/{sent}", time.time())
    answer = await api.client.get(path, headers=bearer(good))
    assert (answer.status_code, answer.content) == (200, b"source" * 1000)
    other = process_tokens.mint_shared(keyring, f"upload other/{sent}", time.time())
    old = process_tokens.mint_shared(keyring, f"upload default/{sent}", time.time() - 1000)
    far = process_tokens.mint_shared(keyring, f"upload default/{sent}", time.time() + 5000)
    for token in (other, old, far, "x", "1.2", f"{good}0", good.replace(".", ".0"), "٣.x"):
        refused = await api.client.get(path, headers={b"Authorization": f"Bearer {token}".encode()})
        assert refused.status_code == 401, token
    assert (await api.client.get(path)).status_code == 401
    missing = f"sha256-{'0' * 64}"
    unknown = process_tokens.mint_shared(keyring, f"upload default/{missing}", time.time())
    assert (await api.client.get(f"/cluster/uploads/default/{missing}", headers=bearer(unknown))).status_code == 404


async def test_a_store_without_an_authority_issues_no_certificates(redis: RedisClient, tmp_path: Path) -> None:
    store = RedisStore(redis)
    async with serving(store, ApiSettings(uploads_dir=tmp_path / "uploads"), redis) as running:
        answer = await join(running, await issue(running), NodeFolder(tmp_path / "n2"), "n2")
        assert answer.status_code == 503
        assert json.loads(answer.text)["message"].startswith("the platform has no authority yet")
    await store.close()
