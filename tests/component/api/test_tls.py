"""The API's own process over TLS: who gets in, and the kubeconfig that is written at its start."""

import asyncio
import os
import shutil
import ssl
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path

import httpx
import kubernetes
import pytest
import yaml

from tests.conftest import free_port, need
from tests.waiting import eventually

pytestmark = [pytest.mark.kubectl, pytest.mark.redis]


@dataclass(frozen=True, slots=True)
class Process:
    """An API process and where it is."""

    plain: str
    tls: str
    state: Path
    home: Path

    @property
    def kubeconfig(self) -> Path:
        return self.state / "kubeconfig"

    def trusting(self) -> ssl.SSLContext:
        return ssl.create_default_context(cafile=str(self.state / "ca.crt"))

    async def kubectl(self, *arguments: str, config: Path | None = None, stdin: str = "") -> str:
        """With the owner's kubeconfig, or another; what it prints, also when it fails."""
        environment = {"PATH": os.environ["PATH"], "HOME": str(self.home), "KUBECONFIG": str(config or self.kubeconfig)}
        return (await _run("kubectl", *arguments, environment=environment, stdin=stdin)).strip()

    async def knoll(self, *arguments: str) -> str:
        environment = {**os.environ, "KNOLL_SERVER": self.plain}
        return await _run(sys.executable, "-m", "knoll.cli", *arguments, environment=environment)


async def _run(*command: str, environment: dict[str, str], stdin: str = "") -> str:
    pipe = asyncio.subprocess.PIPE
    reading = pipe if stdin else asyncio.subprocess.DEVNULL
    process = await asyncio.create_subprocess_exec(
        *command, stdin=reading, stdout=pipe, stderr=asyncio.subprocess.STDOUT, env=environment
    )
    out, _ = await asyncio.wait_for(process.communicate(stdin.encode() or None), 60)
    return out.decode()


@asynccontextmanager
async def running(redis_url: str, folder: Path, tls_port: int = 0, **settings: str) -> AsyncIterator[Process]:
    need("KUBECTL", shutil.which("kubectl") is not None)
    port, tls_port, home = free_port(), tls_port or free_port(), folder / "home"
    home.mkdir(exist_ok=True)
    environment = {
        **os.environ,
        "KNOLL_REDIS_URL": redis_url,
        "KNOLL_API_PORT": str(port),
        "KNOLL_API_TLS_PORT": str(tls_port),
        "KNOLL_STATE_DIR": str(folder / "state"),
        "KNOLL_UPLOADS_DIR": str(folder / "uploads"),
        **settings,
    }
    with (folder / "log").open("ab") as log:
        process = await asyncio.create_subprocess_exec(
            sys.executable, "-m", "api", env=environment, stdout=log, stderr=log
        )
    api_process = Process(f"http://127.0.0.1:{port}", f"https://127.0.0.1:{tls_port}", folder / "state", home)
    try:
        async with httpx.AsyncClient() as client:

            async def up() -> bool:
                assert process.returncode is None, (folder / "log").read_text()
                try:
                    answer = await client.get(f"{api_process.plain}/readyz")
                except httpx.TransportError:
                    return False
                return answer.is_success and api_process.kubeconfig.exists()

            await eventually(up, condition="the API")
        yield api_process
    finally:
        process.terminate()
        assert await asyncio.wait_for(process.wait(), 30) == 0


@pytest.fixture
async def api(redis_url: str, tmp_path: Path) -> AsyncIterator[Process]:
    async with running(redis_url, tmp_path) as platform:
        yield platform


async def test_the_kubeconfig_that_is_written_makes_its_reader_the_owner(api: Process) -> None:
    assert api.kubeconfig.stat().st_mode & 0o777 == 0o600
    assert await api.kubectl("auth", "can-i", "*", "*", "-A") == "yes"
    assert "system:serviceaccount:knative-serving:owner" in await api.kubectl("auth", "whoami")
    assert await api.kubectl("create", "namespace", "team") == "namespace/team created"
    assert await api.kubectl("create", "rolebinding", "r", "-n", "team", "--clusterrole=cluster-admin", "--user=a") == (
        "rolebinding.rbac.authorization.k8s.io/r created"
    )
    names = yaml.safe_load(await api.kubectl("get", "configmap", "kube-root-ca.crt", "-n", "team", "-o", "yaml"))
    assert names["data"]["ca.crt"] == (api.state / "ca.crt").read_text()
    assert "default" in await api.kubectl("get", "serviceaccounts", "-n", "team")


async def test_the_official_client_reads_it_too(api: Process) -> None:
    client = kubernetes.config.new_client_from_config(str(api.kubeconfig))
    listed = await asyncio.to_thread(kubernetes.client.CoreV1Api(client).list_namespace)
    assert {"default", "knative-serving"} <= {item.metadata.name for item in listed.items}
    client.close()


async def test_unauthenticated_requests_over_tls_see_only_health_and_version(api: Process) -> None:
    # Forged proxy headers give no identity.
    lies = {"X-Forwarded-Proto": "http", "X-Forwarded-For": "127.0.0.1", "X-Remote-User": "admin"}
    async with httpx.AsyncClient(base_url=api.tls, verify=api.trusting(), headers=lies) as client:
        assert (await client.get("/readyz")).status_code == 200
        assert (await client.get("/version")).status_code == 200
        refused = await client.get("/api/v1/namespaces/default/secrets")
        assert (refused.status_code, refused.json()["message"]) == (
            403,
            'secrets is forbidden: User "system:anonymous" cannot list resource "secrets" in API group "" '
            'in the namespace "default"',
        )
        assert refused.json()["details"] == {"kind": "secrets"}
        for path in ("/metrics", "/apis", "/openapi/v3"):
            assert (await client.get(path)).status_code == 403
        assert (await client.post("/uploads", content=b"x")).status_code == 403
        assert (await client.get("/version", headers={"Authorization": "Bearer x"})).status_code == 401


async def test_a_token_is_required_where_other_machines_reach_the_plain_port(redis_url: str, tmp_path: Path) -> None:
    async with (
        running(redis_url, tmp_path, KNOLL_API_HOST="0.0.0.0") as api,
        httpx.AsyncClient(base_url=api.plain) as client,
    ):
        assert (await client.get("/api/v1/namespaces")).status_code == 403
        token = yaml.safe_load(api.kubeconfig.read_text())["users"][0]["user"]["token"]
        answer = await client.get("/api/v1/namespaces", headers={"Authorization": f"Bearer {token}"})
        assert answer.status_code == 200


async def test_the_kubeconfig_works_after_a_restart_and_is_rewritten_when_it_would_not(
    redis_url: str, tmp_path: Path
) -> None:
    port = free_port()
    async with running(redis_url, tmp_path, port) as api:
        first = yaml.safe_load(api.kubeconfig.read_text())
    async with running(redis_url, tmp_path, port) as api:
        second = yaml.safe_load(api.kubeconfig.read_text())
        assert second["users"] == first["users"]
        assert await api.kubectl("auth", "can-i", "create", "ksvc") == "yes"
        await api.kubectl("delete", "serviceaccount", "owner", "-n", "knative-serving")
        assert "logged in" in await api.kubectl("get", "ksvc")
    async with running(redis_url, tmp_path, port) as api:

        async def owns() -> bool:
            return await api.kubectl("auth", "can-i", "create", "ksvc") == "yes"

        await eventually(owns, condition="a new kubeconfig")
        assert yaml.safe_load(api.kubeconfig.read_text())["users"] != first["users"]


async def test_the_kubeconfig_of_a_service_account_has_the_rights_of_its_binding(api: Process, tmp_path: Path) -> None:
    await api.kubectl("create", "serviceaccount", "ci")
    await api.kubectl("create", "rolebinding", "ci", "--clusterrole=edit", "--serviceaccount=default:ci")
    config = tmp_path / "ci.yaml"
    config.write_text(await api.knoll("kubeconfig", "--service-account", "ci", "--duration", "1h"))
    assert yaml.safe_load(config.read_text())["clusters"][0]["cluster"]["server"] == api.tls
    assert await api.kubectl("auth", "can-i", "create", "ksvc", config=config) == "yes"
    assert await api.kubectl("auth", "can-i", "create", "rolebindings", config=config) == "no"
    assert await api.kubectl("auth", "can-i", "list", "ksvc", "-n", "kube-system", config=config) == "no"
    assert "Forbidden" in await api.kubectl("get", "ksvc", "-A", config=config)
    listed = await api.kubectl("auth", "can-i", "--list", config=config)
    assert "*.serving.knative.dev" in listed
    assert "[get list watch]" in listed
    # Building starts with the source, which lies in no namespace.
    assert "no answer" not in await api.knoll("status", "--kubeconfig", str(config))
    token = yaml.safe_load(config.read_text())["users"][0]["user"]["token"]
    async with httpx.AsyncClient(base_url=api.tls, verify=api.trusting()) as client:
        headers = {"Authorization": f"Bearer {token}", "Content-Type": "application/x-tar"}
        sent = await client.post("/uploads", content=b"no archive", headers=headers)
        assert sent.status_code not in (401, 403)
    assert "not found" in await api.knoll("kubeconfig", "--service-account", "unknown")
    assert "such as 24h" in await api.knoll("kubeconfig", "--duration", "long")


async def test_only_the_owner_may_impersonate(api: Process, tmp_path: Path) -> None:
    await api.kubectl("create", "serviceaccount", "ci")
    await api.kubectl("create", "rolebinding", "ci", "--clusterrole=view", "--serviceaccount=default:ci")
    robot = "--as=system:serviceaccount:default:ci"
    assert await api.kubectl("auth", "can-i", "list", "ksvc", robot) == "yes"
    assert await api.kubectl("auth", "can-i", "create", "ksvc", robot) == "no"
    assert "cannot create resource" in await api.kubectl("create", "configmap", "c", robot)
    assert await api.kubectl("auth", "can-i", "create", "ksvc", "--as=ann", "--as-group=system:masters") == "yes"
    config = tmp_path / "ci.yaml"
    config.write_text(await api.knoll("kubeconfig", "--service-account", "ci"))
    refused = await api.kubectl("get", "ksvc", "--as=ann", config=config)
    assert 'cannot impersonate resource "users" in API group ""' in refused
    groups = await api.kubectl("get", "ksvc", "--as=system:serviceaccount:default:ci", "--as-group=g", config=config)
    assert "cannot impersonate resource" in groups


async def test_roles_can_be_read_but_not_changed(api: Process) -> None:
    assert {"view", "edit", "admin", "cluster-admin"} <= set((await api.kubectl("get", "clusterroles")).split())
    assert "serving.knative.dev" in await api.kubectl("describe", "clusterrole", "edit")
    refused = await api.kubectl("create", "clusterrole", "mine", "--verb=get", "--resource=pods")
    assert "MethodNotAllowed" in refused


async def test_a_user_with_the_right_to_review_tokens_gets_their_users(api: Process) -> None:
    token = await api.kubectl("create", "token", "default")
    review = "apiVersion: authentication.k8s.io/v1\nkind: TokenReview\nspec: {token: %s}\n"
    good = yaml.safe_load(await api.kubectl("create", "-o", "yaml", "-f", "-", stdin=review % token))["status"]
    assert good["authenticated"] is True
    assert good["user"]["username"] == "system:serviceaccount:default:default"
    bad = yaml.safe_load(await api.kubectl("create", "-o", "yaml", "-f", "-", stdin=review % "x"))["status"]
    assert bad["authenticated"] is False


async def test_with_the_plain_port_closed_the_command_works_and_requests_need_a_token(
    redis_url: str, tmp_path: Path
) -> None:
    path = tmp_path / "api.sock"
    closed = {"KNOLL_API_TRUSTS_PLAIN": "false", "KNOLL_API_SOCKET": str(path)}
    async with running(redis_url, tmp_path, 0, **closed) as api:
        own = {**os.environ, "KNOLL_STATE_DIR": str(api.state), "KNOLL_DATA": str(tmp_path)}
        command = (sys.executable, "-m", "knoll.cli")
        assert "no Services" in await _run(*command, "status", environment=own)
        printed = await _run(*command, "kubeconfig", environment=own)
        assert yaml.safe_load(printed)["clusters"][0]["cluster"]["server"] == api.tls
        refused = await api.knoll("status")
        assert "is forbidden" in refused
        assert "The request had no token: pass a kubeconfig" in refused
        checked = await _run(*command, "doctor", "--server", api.plain, "-o", "json", environment=own)
        assert f"{api.plain} requires a token" in checked
        assert "no Services" in await _run(*command, "status", "--server", f"unix:{path}", environment=own)


async def test_the_doctor_warns_of_users_with_rights_while_the_plain_port_is_open(api: Process) -> None:
    checked = await api.knoll("doctor", "--server", api.plain, "-o", "json")
    assert f"{api.plain} needs no token" in checked
    assert "role bindings for others exist" not in checked
    await api.kubectl("create", "rolebinding", "ci", "--clusterrole=edit", "--serviceaccount=default:ci")
    checked = await api.knoll("doctor", "--server", api.plain, "-o", "json")
    assert "role bindings for others exist (ci)" in checked
    assert "KNOLL_API_TRUSTS_PLAIN=false" in checked


async def test_following_logs_ends_with_a_reason_when_the_right_to_them_ends(api: Process, tmp_path: Path) -> None:
    await api.kubectl("create", "serviceaccount", "ci")
    await api.kubectl("create", "rolebinding", "ci", "--clusterrole=view", "--serviceaccount=default:ci")
    config = tmp_path / "ci.yaml"
    config.write_text(await api.knoll("kubeconfig", "--service-account", "ci"))
    manifest = """
apiVersion: serving.knative.dev/v1
kind: Service
metadata: {name: app}
spec: {template: {spec: {containers: [{image: example/app}]}}}
"""
    assert "created" in await api.kubectl("apply", "-f", "-", stdin=manifest)
    environment = {name: value for name, value in os.environ.items() if name != "KNOLL_SERVER"}
    command = [sys.executable, "-m", "knoll.cli", "logs", "-f", "app", "--kubeconfig", str(config)]
    process = await asyncio.create_subprocess_exec(*command, stderr=asyncio.subprocess.PIPE, env=environment)

    async def watched() -> bool:
        async with httpx.AsyncClient(base_url=api.plain) as client:
            shown = (await client.get("/metrics")).text
        return any(line.startswith("knoll_api_watches 1") for line in shown.splitlines())

    await eventually(watched, condition="the watch of Pods")
    await api.kubectl("delete", "rolebinding", "ci")
    _, complaint = await asyncio.wait_for(process.communicate(), 30)
    assert process.returncode == 1
    assert b"cannot watch resource" in complaint
