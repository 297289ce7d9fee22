import pytest
from hypothesis import given

from knoll.values.image_reference import parse_image
from tests.strategies import images

SHA = "a" * 64


@pytest.mark.parametrize(
    ("text", "parts"),
    [
        ("alpine", ("", "alpine", "", "")),
        ("alpine:3.20", ("", "alpine", "3.20", "")),
        ("library/alpine", ("", "library/alpine", "", "")),
        ("localhost/app", ("localhost", "app", "", "")),
        ("127.0.0.1:5000/app:v1", ("127.0.0.1:5000", "app", "v1", "")),
        ("registry.example.com/team/app", ("registry.example.com", "team/app", "", "")),
        (f"app@sha256:{SHA}", ("", "app", "", f"sha256:{SHA}")),
        (f"r.example/a/b:v1@sha256:{SHA}", ("r.example", "a/b", "v1", f"sha256:{SHA}")),
        ("x/a__b-c.d", ("", "x/a__b-c.d", "", "")),
    ],
)
def test_a_reference_has_its_parts(text: str, parts: tuple[str, str, str, str]) -> None:
    reference = parse_image(text)
    assert (reference.registry, reference.path, reference.tag, reference.digest) == parts


@pytest.mark.parametrize(
    "text",
    [
        "", "UPPER", "a b", "app:", "app:-x", "app:" + "t" * 129, "app@sha256:abc", "app@md5:" + SHA, "/app", "app/",
        "a//b", "http://a/b", "-bad.example/app", "app@", "app@@", "a." * 200, "team/" + "x" * 260, "ä",
    ],
)  # fmt: skip
def test_what_is_no_reference_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match=r"."):
        parse_image(text)


def test_a_digest_is_put_after_the_repository() -> None:
    assert parse_image("localhost:5000/team/app:v1").pinned(f"sha256:{SHA}") == f"localhost:5000/team/app@sha256:{SHA}"


@given(images())
def test_every_usual_reference_can_be_read_and_put_together_again(text: str) -> None:
    reference = parse_image(text)
    tag = f":{reference.tag}" if reference.tag else ""
    digest = f"@{reference.digest}" if reference.digest else ""
    assert reference.repository + tag + digest == text
