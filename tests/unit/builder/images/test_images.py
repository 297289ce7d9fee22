from dataclasses import replace

import pytest

from builder.images.engine_images import LocalImage, PullPolicy, local_digest, newest, order

BUILT = LocalImage("sha256:" + "a" * 64, ())
PULLED = LocalImage("sha256:" + "b" * 64, ("golang@sha256:" + "c" * 64,))
PUSHED = LocalImage("sha256:" + "b" * 64, ("example.com/golang@sha256:" + "c" * 64,))


@pytest.mark.parametrize(
    ("policy", "tag", "local", "places"),
    [
        pytest.param("", "v1", None, ("registry",), id="what is not here is asked for"),
        pytest.param("", "v1", PULLED, ("local",), id="a tag that is here is taken"),
        pytest.param("", "latest", PULLED, ("registry", "local"), id="latest may have moved on"),
        pytest.param("", "", PULLED, ("registry", "local"), id="no tag is latest"),
        pytest.param("", "latest", BUILT, ("local",), id="what was built here is here"),
        pytest.param("IfNotPresent", "latest", PULLED, ("local",), id="IfNotPresent takes what is here"),
        pytest.param("Always", "v1", PULLED, ("registry",), id="Always asks"),
        pytest.param("Always", "v1", BUILT, ("registry",), id="Always asks for what was built here too"),
        pytest.param("Never", "v1", None, ("local",), id="Never does not ask"),
        pytest.param("", "latest", PUSHED, ("local",), id="what went elsewhere is here all the same"),
    ],
)
def test_a_tag_is_looked_up_in_this_order(
    policy: PullPolicy, tag: str, local: LocalImage | None, places: tuple[str, ...]
) -> None:
    assert order(policy, "golang", tag, local) == places


@pytest.mark.parametrize(
    ("repository", "local", "digest"),
    [
        ("rest-api-go", BUILT, "rest-api-go@" + BUILT.id),
        ("golang", PULLED, "golang@sha256:" + "c" * 64),
        ("docker.io/library/golang", PULLED, "docker.io/library/golang@sha256:" + "c" * 64),
        ("example.com/golang", PULLED, "example.com/golang@" + PULLED.id),
    ],
)
def test_a_local_image_has_its_registrys_digest_or_its_id(repository: str, local: LocalImage, digest: str) -> None:
    assert local_digest(repository, local) == digest


EARLY, LATE = (
    replace(BUILT, tagged=1.0),
    replace(PULLED, id="sha256:" + "d" * 64, repo_digests=(), tagged=2.0, node="n2"),
)


@pytest.mark.parametrize(
    ("here", "elsewhere", "chosen"),
    [
        pytest.param(None, [], None, id="no engine has the name"),
        pytest.param(BUILT, [], BUILT, id="the engine here has it"),
        pytest.param(None, [LATE], LATE, id="another engine has it"),
        pytest.param(EARLY, [LATE], LATE, id="another engine got it later"),
        pytest.param(replace(EARLY, tagged=3.0), [LATE], replace(EARLY, tagged=3.0), id="the engine here got it later"),
        pytest.param(PULLED, [replace(PULLED, node="n2")], PULLED, id="both pulled it"),
        pytest.param(None, [replace(PULLED, node="n2")], None, id="another one pulled it: this one can as well"),
        pytest.param(PULLED, [LATE], LATE, id="one that was built takes the name away from one that was pulled"),
    ],
)
def test_a_name_on_several_engines_is_the_image_that_got_it_last(
    here: LocalImage | None, elsewhere: list[LocalImage], chosen: LocalImage | None
) -> None:
    assert newest("golang", here, elsewhere) == chosen
