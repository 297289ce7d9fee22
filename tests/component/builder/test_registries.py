"""Images that come from registries and go there: open, with a password, over TLS with an authority of our own."""

import base64
import json
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from knoll.messages import builds
from knoll.values import kinds
from tests.component.builder.conftest import Yard, docker, tar_of
from tests.registry import PASSWORD, USER, Registry, registry


def source(yard: Yard) -> bytes:
    """A small image that no other test has, under no other name."""
    return tar_of({"Dockerfile": f"FROM scratch\nCOPY name /\nLABEL test={yard.prefix}\n", "name": yard.prefix})


def bridge_address() -> str:
    command = ["docker", "network", "inspect", "bridge", "--format={{(index .IPAM.Config 0).Gateway}}"]
    return subprocess.run(command, capture_output=True, text=True, check=True).stdout.strip()


@pytest.fixture(params=["open", "password", "tls and password"])
def place(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Registry]:
    address = bridge_address() if "tls" in request.param else ""
    with registry(tmp_path / "registry", password="password" in request.param, tls_address=address) as server:
        yield server


@pytest.fixture
def guarded(tmp_path: Path) -> Iterator[Registry]:
    with registry(tmp_path / "registry", password=True) as server:
        yield server


async def test_a_pushed_image_is_resolved_to_its_registrys_digest_and_pulled_again(yard: Yard, place: Registry) -> None:
    yard.start()
    await add_secret(yard, place, PASSWORD)
    tag = place.image(f"{yard.prefix}/pushed:v1")
    pull_secrets = [{"name": "pull"}]
    await yard.submit("pushed", source(yard), tag=tag, push=True, imagePullSecrets=pull_secrets)
    ended = await yard.over("pushed")
    assert ended.phase == "Succeeded", ended

    pushed = docker("image", "inspect", "--format={{index .RepoDigests 0}}", tag).stdout.strip()
    assert ended.digest == pushed
    docker("image", "rm", "--force", docker("image", "inspect", "--format={{.Id}}", tag).stdout.strip())
    assert (await resolution(yard, tag, imagePullSecrets=pull_secrets)).images[0].digest == pushed

    await yard.submit("based", tar_of({"Dockerfile": f"FROM {tag}\n"}), imagePullSecrets=pull_secrets)
    assert (await yard.over("based")).phase == "Succeeded"
    await yard.submit("mirrored", source={"image": tag}, imagePullSecrets=pull_secrets)
    assert (await yard.over("mirrored")).phase == "Succeeded"


async def test_a_registry_with_a_password_needs_credentials(yard: Yard, guarded: Registry) -> None:
    yard.start()
    tag = guarded.image(f"{yard.prefix}/closed:v1")
    await yard.submit("closed", source(yard), tag=tag, push=True)
    ended = await yard.over("closed")
    assert (ended.phase, ended.reason) == ("Failed", "PushFailed")
    assert f'"{tag}" could not be pushed' in ended.message
    assert "no basic auth credentials" in ended.message

    answer = await resolution(yard, guarded.image("unknown/has-this:v1"), imagePullSecrets=[{"name": "absent"}])
    assert "no basic auth credentials" in answer.error
    assert "the Secret default/absent in imagePullSecrets does not exist" in answer.error


async def test_a_wrong_password_is_reported_and_another_valid_credential_is_used(yard: Yard, guarded: Registry) -> None:
    yard.start()
    tag = guarded.image(f"{yard.prefix}/wrong:v1")
    await add_secret(yard, guarded, "another")
    await yard.submit("wrong", source(yard), tag=tag, push=True, imagePullSecrets=[{"name": "pull"}])
    ended = await yard.over("wrong")
    assert (ended.phase, ended.reason) == ("Failed", "PushFailed")
    assert "unauthorized" in ended.message.lower()

    account = {"metadata": {"namespace": "default", "name": "ci"}, "imagePullSecrets": [{"name": "right"}]}
    await yard.store.create(kinds.SERVICE_ACCOUNT.id, account)
    await add_secret(yard, guarded, PASSWORD, name="right")
    await yard.submit("right", source(yard), tag=tag, push=True, serviceAccountName="ci")
    assert (await yard.over("right")).phase == "Succeeded"


async def test_the_platforms_credential_applies_to_all_namespaces(yard: Yard, guarded: Registry) -> None:
    yard.start()
    await add_secret(yard, guarded, PASSWORD, namespace="knative-serving", name="registry")
    tag = guarded.image(f"{yard.prefix}/default:v1")
    await yard.submit("default", source(yard), tag=tag, push=True)
    assert (await yard.over("default")).phase == "Succeeded"


async def test_the_error_names_a_secret_of_another_type(yard: Yard, guarded: Registry) -> None:
    yard.start()
    body = {"metadata": {"namespace": "default", "name": "pull"}, "type": "Opaque", "data": {}}
    await yard.store.create(kinds.SECRET.id, body)
    answer = await resolution(yard, guarded.image("a/b:v1"), imagePullSecrets=[{"name": "pull"}])
    assert "the Secret default/pull is of type Opaque" in answer.error


async def add_secret(
    yard: Yard, place: Registry, password: str, namespace: str = "default", name: str = "pull"
) -> None:
    """As `kubectl create secret docker-registry` makes it."""
    document = {"auths": {place.host: {"username": USER, "password": password}}}
    data = {".dockerconfigjson": base64.b64encode(json.dumps(document).encode()).decode()}
    meta = {"namespace": namespace, "name": name}
    body = {"metadata": meta, "type": "kubernetes.io/dockerconfigjson", "data": data}
    await yard.store.create(kinds.SECRET.id, body)


async def resolution(yard: Yard, image: str, **spec: Any) -> builds.Resolution:
    """What the builder answers when a Revision's image is asked for."""
    await yard.ask("asks", image, **spec)
    return await yard.answered("asks")
