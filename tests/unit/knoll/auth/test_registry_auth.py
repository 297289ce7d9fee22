"""Credentials of registries: which Secret applies to which image."""

import base64
import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from knoll.auth.registry_auth import Credential, credentials, docker_config, matching, secret_names
from knoll.values.errors import ImageError


def secret(auths: Any, type_: str = "kubernetes.io/dockerconfigjson", key: str = ".dockerconfigjson") -> dict[str, Any]:
    document = {"auths": auths} if key == ".dockerconfigjson" else auths
    data = {key: base64.b64encode(json.dumps(document).encode()).decode()}
    return {"metadata": {"namespace": "team", "name": "pull"}, "type": type_, "data": data}


@pytest.mark.parametrize(
    ("registry", "image", "fits"),
    [
        ("r.example.com", "r.example.com/app:v1", True),
        ("https://r.example.com", "r.example.com/app", True),
        ("https://r.example.com/v2/", "r.example.com/app", True),
        ("r.example.com", "r.example.com:5000/app", False),
        ("r.example.com:5000", "r.example.com:5000/app", True),
        ("*.example.com", "r.example.com/app", True),
        ("*.com", "r.example.com/app", False),
        ("*.example.com", "example.com/app", False),
        ("r.example.com/team", "r.example.com/team/app", True),
        ("r.example.com/team", "r.example.com/team", True),
        ("r.example.com/team", "r.example.com/teams/app", False),
        ("https://index.docker.io/v1/", "alpine", True),
        ("docker.io", "me/app:1", True),
        ("docker.io/library", "alpine", True),
        ("docker.io", "r.example.com/app", False),
        ("127.0.0.1:5000", "127.0.0.1:5000/app@sha256:" + "a" * 64, True),
        ("localhost:5000", "localhost:5000/app", True),
    ],
)
def test_a_credential_counts_for_the_images_of_its_registry(registry: str, image: str, fits: bool) -> None:
    available = credentials(secret({registry: {"username": "u", "password": "p"}}))
    assert bool(matching(available, image)) is fits


def test_the_more_special_one_is_shown_first() -> None:
    auths = {host: {"username": host, "password": "p"} for host in ("r.io", "r.io/team/app", "r.io/team")}
    matches = matching(credentials(secret(auths)), "r.io/team/app:v1")
    assert [credential.username for credential in matches] == ["r.io/team/app", "r.io/team", "r.io"]


def test_user_and_password_may_be_written_together_and_the_password_may_have_colons() -> None:
    auth = base64.b64encode(b"me:pa:ss").decode()
    (credential,) = credentials(secret({"r.io": {"auth": auth}}))
    assert (credential.username, credential.password) == ("me", "pa:ss")


def test_the_older_form_of_secret_is_read() -> None:
    read = credentials(secret({"r.io": {"username": "me"}}, "kubernetes.io/dockercfg", ".dockercfg"))
    assert read == [Credential("r.io", "me")]


@pytest.mark.parametrize(
    ("body", "reason"),
    [
        (secret({}, "Opaque"), "is of type Opaque"),
        ({"metadata": {"namespace": "team", "name": "pull"}}, "is of type Opaque"),
        ({**secret({}), "data": {}}, "not a Docker configuration"),
        ({**secret({}), "data": {".dockerconfigjson": "%%"}}, "not a Docker configuration"),
        (secret(["r.io"]), "not a Docker configuration"),
        (secret({"r.io": "text"}), "not a Docker configuration"),
        (secret({"r.io": {"auth": "%"}}), "not a Docker configuration"),
    ],
)
def test_a_secret_that_holds_no_credentials_is_named_with_the_reason(body: dict[str, Any], reason: str) -> None:
    with pytest.raises(ImageError, match=reason) as caught:
        credentials(body)
    assert "team/pull" in str(caught.value)


def test_the_engine_gets_a_token_where_there_is_one() -> None:
    header = json.loads(base64.urlsafe_b64decode(Credential("r.io", "u", "p", "token").header()))
    assert header == {"identitytoken": "token", "serveraddress": "r.io"}


@given(st.dictionaries(st.from_regex(r"[a-z]{1,8}\.[a-z]{2,3}(:[0-9]{2,4})?(/[a-z]{1,5})?", fullmatch=True),
                       st.tuples(st.text(st.characters(exclude_characters=":", codec="utf-8"), min_size=1), st.text()),
                       max_size=5))  # fmt: skip
def test_what_docker_is_given_is_read_back_the_same(users: dict[str, tuple[str, str]]) -> None:
    before = [Credential(host, user, password) for host, (user, password) in users.items()]
    assert credentials(secret(json.loads(docker_config(before))["auths"])) == before


def test_the_docker_hub_has_its_own_name_in_dockers_file() -> None:
    assert list(json.loads(docker_config([Credential("docker.io", "u", "p")]))["auths"]) == [
        "https://index.docker.io/v1/"
    ]


def test_secrets_of_the_spec_come_before_those_of_its_service_account() -> None:
    account = {"imagePullSecrets": [{"name": "b"}, {"name": "c"}]}
    assert secret_names({"imagePullSecrets": [{"name": "a"}, {"name": "b"}]}, account) == ["a", "b", "c"]
    assert secret_names({}, None) == []
