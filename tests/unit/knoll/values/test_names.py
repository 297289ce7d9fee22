import pytest
from hypothesis import given
from hypothesis import strategies as st

from knoll.values import names
from knoll.values.names import TemplateValues, render
from tests.strategies import dns_labels


@pytest.mark.parametrize("name", ["a", "a1", "a-b", "a" * 63])
def test_a_dns_1035_label_is_accepted(name: str) -> None:
    assert names.dns_1035_problems(name) == []


@pytest.mark.parametrize("name", ["", "1a", "-a", "a-", "A", "a.b", "a_b", "a" * 64, "ä", "a\n"])
def test_other_names_are_no_dns_1035_label(name: str) -> None:
    assert names.dns_1035_problems(name)


def test_a_prefix_may_end_in_a_dash() -> None:
    assert names.dns_1035_problems("web-", prefix=True) == []
    assert names.dns_1035_problems("web-", prefix=False)


@pytest.mark.parametrize("name", ["a", "1", "a.b", "a-1.b2.c"])
def test_a_subdomain_is_accepted(name: str) -> None:
    assert names.subdomain_problems(name) == []


@pytest.mark.parametrize("name", ["", "foo@bar.baz", "a..b", ".a", "a.", "A.b", "a-.b", "a" * 254])
def test_other_names_are_no_subdomain(name: str) -> None:
    assert names.subdomain_problems(name)


@pytest.mark.parametrize("name", ["app", "My_Name.1", "example.com/app", "a/b"])
def test_a_qualified_name_is_accepted(name: str) -> None:
    assert names.qualified_problems(name) == []


@pytest.mark.parametrize("name", ["", "/a", "a/", "a/b/c", "-a", "a b", "Ä/b"])
def test_other_names_are_not_qualified(name: str) -> None:
    assert names.qualified_problems(name)


def test_a_short_child_is_named_by_simply_adding() -> None:
    assert names.child_name("hello", "-00001") == "hello-00001"


def test_a_long_parent_is_shortened_with_its_md5() -> None:
    # The digest of 63 times the letter a, as md5sum gives it.
    parent = "a" * 63
    assert names.child_name(parent, "-deployment") == "a" * 20 + "b06521f39153d618550606be297466d5" + "-deployment"


def test_a_long_suffix_is_digested_with_its_parent() -> None:
    child = names.child_name("a" * 40, "-" + "b" * 40)
    assert len(child) == 63
    assert child.startswith("a" * 31)


@given(dns_labels(63), st.sampled_from(["-00001", "-deployment", "-private", "-" + "x" * 30, "-" + "y" * 70]))
def test_a_child_always_has_a_name_that_is_allowed(parent: str, suffix: str) -> None:
    assert names.dns_1035_problems(names.child_name(parent, suffix)) == []


@given(dns_labels(63), dns_labels(63))
def test_different_parents_have_different_children(first: str, second: str) -> None:
    assert (names.child_name(first, "-deployment") == names.child_name(second, "-deployment")) == (first == second)


def test_a_revision_is_named_after_its_generation() -> None:
    assert names.revision_name("hello", 1) == "hello-00001"
    assert names.revision_name("hello", 123456) == "hello-123456"


HELLO = TemplateValues("hello", "default", "example.com", "v1", {"sub.io/x": "s", "team": "a"}, {"app": "web"})


@pytest.mark.parametrize(
    ("template", "text"),
    [
        ("{{.Name}}.{{.Namespace}}.{{.Domain}}", "hello.default.example.com"),
        ("{{ .Tag }}-{{.Name}}", "v1-hello"),
        ('{{.Name}}.{{index .Annotations "sub.io/x"}}.{{.Domain}}', "hello.s.example.com"),
        ("{{.Labels.app}}-{{.Annotations.team}}{{.Labels.none}}", "web-a"),
        ("plain", "plain"),
        ("{{- .Name -}}", "hello"),
    ],
)
def test_a_template_is_filled_in(template: str, text: str) -> None:
    assert render(template, HELLO) == text


@pytest.mark.parametrize("template", ["{{.Nope}}", "{{if .Name}}x{{end}}", "{{", "{{.Name}", "a}}"])
def test_a_template_with_other_actions_is_refused(template: str) -> None:
    with pytest.raises(ValueError, match=r"not supported|braces"):
        render(template, HELLO)


def test_an_instance_reaches_a_route_by_three_hosts() -> None:
    assert names.local_hosts("hello", "default") == (
        "hello.default.svc.cluster.local", "hello.default.svc", "hello.default",
    )  # fmt: skip


@pytest.mark.parametrize(
    ("arguments", "text"),
    [
        (("a.b",), "http://a.b"),
        (("a.b", "http", 80), "http://a.b"),
        (("a.b", "http", 8080), "http://a.b:8080"),
        (("a.b", "https", 443), "https://a.b"),
        (("a.b", "https", 80), "https://a.b:80"),
    ],
)
def test_an_address_shows_its_port_unless_it_is_the_usual(arguments: tuple[str, str, int], text: str) -> None:
    assert names.url(*arguments) == text
