"""Builds: what a client writes becomes what is stored, and what is refused."""

import pytest

from knoll.config.platform import PlatformConfig
from knoll.values import kinds
from knoll.values.errors import InvalidResourceError
from knoll.values.json import Json
from tests.unit.knoll.resources.admission.admitting import (
    create,
    object_of,
    refused,
    update,
)

BUILD = {"source": {"upload": {"id": "u1", "sha256": "a" * 64}}, "tag": "app:v1"}


def test_a_build_is_defaulted_and_never_changes() -> None:
    stored = create(object_of(kinds.BUILD_KIND, BUILD), kinds.BUILD_KIND)
    assert stored["spec"] == {**BUILD, "dockerfile": "Dockerfile"}
    assert update(stored, object_of(kinds.BUILD_KIND, BUILD), kinds.BUILD_KIND) == stored
    new = object_of(kinds.BUILD_KIND, {**BUILD, "tag": "app:v2"})
    with pytest.raises(InvalidResourceError) as caught:
        update(stored, new, kinds.BUILD_KIND)
    assert caught.value.code == 422
    assert str(caught.value) == ('Immutable fields changed (-old +new): spec\nspec.tag:\n\t-: "app:v1"\n\t+: "app:v2"')


BUILDS: list[tuple[str, Json, str]] = [
    (
        "no source",
        {"source": {}},
        "expected exactly one, got neither: spec.source.git, spec.source.image, spec.source.upload",
    ),
    (
        "two sources",
        {"source": {"upload": {"id": "u1"}, "image": "a"}},
        "expected exactly one, got both: spec.source.image, spec.source.upload",
    ),
    ("no id", {"source": {"upload": {}}}, "missing field(s): spec.source.upload.id"),
    ("an id that is a path", {"source": {"upload": {"id": "../x"}}}, "invalid value: ../x: spec.source.upload.id"),
    (
        "a digest that is none",
        {"source": {"upload": {"id": "u", "sha256": "abc"}}},
        "invalid value: abc: spec.source.upload.sha256",
    ),
    ("no repository", {"source": {"git": {}}}, "missing field(s): spec.source.git.url"),
    (
        "a file as repository",
        {"source": {"git": {"url": "file:///etc"}}},
        "invalid value: file:///etc: spec.source.git.url",
    ),
    (
        "an option as repository",
        {"source": {"git": {"url": "--upload-pack=x"}}},
        "invalid value: --upload-pack=x: spec.source.git.url",
    ),
    (
        "an option as revision",
        {"source": {"git": {"url": "https://a/b", "revision": "-x"}}},
        "invalid value: -x: spec.source.git.revision",
    ),
    (
        "a query that ends as a repository",
        {"source": {"git": {"url": "http://127.0.0.1:8001/api/v1/namespaces/sec-b/secrets/crown?x=.git"}}},
        "invalid value: http://127.0.0.1:8001/api/v1/namespaces/sec-b/secrets/crown?x=.git: spec.source.git.url",
    ),
    (
        "an option of ssh",
        {"source": {"git": {"url": "ssh://-oProxyCommand=id/x"}}},
        "invalid value: ssh://-oProxyCommand=id/x: spec.source.git.url",
    ),
    (
        "a repository on this machine",
        {"source": {"git": {"url": "git://127.0.0.1:8001/x"}}},
        "invalid value: git://127.0.0.1:8001/x: spec.source.git.url\nmust not be an address of this machine",
    ),
    ("the platform's image as tag", {"tag": "knoll:latest"}, "invalid value: knoll:latest: spec.tag\nthe name is"),
    ("the pause image as tag", {"tag": "knoll/pause:3"}, "invalid value: knoll/pause:3: spec.tag\nthe name is"),
    ("a base image as tag", {"tag": "python:3.13-slim"}, "invalid value: python:3.13-slim: spec.tag\nthe name is"),
    ("an image that is none", {"source": {"image": "A B"}}, "Failed to parse image reference: spec.source.image"),
    ("no tag", {"tag": ""}, "missing field(s): spec.tag"),
    ("a tag that is none", {"tag": "A B"}, "Failed to parse image reference: spec.tag"),
    ("a digest as tag", {"tag": "app@sha256:" + "a" * 64}, "invalid value: app@sha256:"),
    ("a Dockerfile outside", {"dockerfile": "../Dockerfile"}, "invalid value: ../Dockerfile: spec.dockerfile"),
    ("a platform that is none", {"platform": "amd64"}, "invalid value: amd64: spec.platform"),
    ("a stage that is none", {"target": "--x"}, "invalid value: --x: spec.target"),
    ("an argument that is none", {"args": {"A=b": "c"}}, "invalid value: A=b: spec.args"),
    (
        "another namespace's caches",
        {"args": {"BUILDKIT_CACHE_MOUNT_NS": "sec-b"}},
        "invalid value: BUILDKIT_CACHE_MOUNT_NS: spec.args\nthe argument is set by the platform",
    ),
    (
        "another frontend",
        {"args": {"BUILDKIT_SYNTAX": "evil/frontend"}},
        "invalid value: BUILDKIT_SYNTAX: spec.args\nthe argument is set by the platform",
    ),
    ("half a secret", {"secrets": [{"id": "a"}]}, "missing field(s): spec.secrets[0].key, spec.secrets[0].name"),
]


@pytest.mark.parametrize(("spec", "start"), [row[1:] for row in BUILDS], ids=[row[0] for row in BUILDS])
def test_invalid_builds_are_refused(spec: Json, start: str) -> None:
    (problem,) = refused(create, object_of(kinds.BUILD_KIND, {**BUILD, **spec}), kinds.BUILD_KIND)
    assert problem.startswith(start)


@pytest.mark.parametrize("url", ["https://example.com/a.git", "ssh://git@example.com/a", "git@example.com:team/a.git"])
def test_repositories_of_every_usual_form_are_taken(url: str) -> None:
    body = object_of(kinds.BUILD_KIND, {"source": {"git": {"url": url}}, "tag": "app"})
    assert create(body, kinds.BUILD_KIND)["spec"]["source"] == {"git": {"url": url}}


def test_a_repository_on_a_private_network_is_taken_where_the_operator_allows_it() -> None:
    body = object_of(kinds.BUILD_KIND, {"source": {"git": {"url": "git://10.1.2.3/x"}}, "tag": "app"})
    with pytest.raises(InvalidResourceError):
        create(body, kinds.BUILD_KIND)
    config = PlatformConfig().with_config_map("config-security", {"build-destinations": "10.1.0.0/16"})
    assert create(body, kinds.BUILD_KIND, config=config)["spec"]["tag"] == "app"
