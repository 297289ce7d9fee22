"""Label and field selectors."""

from contextlib import suppress

import pytest
from hypothesis import given
from hypothesis import strategies as st

from api.wire import selectors
from knoll.values.errors import BadRequestError

LABELS = {"app": "web", "tier": "front", "empty": "", "n": "5"}


def body(labels: dict[str, str], **more: object) -> dict[str, object]:
    return {"metadata": {"name": "x", "namespace": "ns", "labels": labels}, **more}


@pytest.mark.parametrize(
    ("text", "matches"),
    [
        ("app=web", True), ("app==web", True), ("app!=web", False), ("app=db", False), ("app!=db", True),
        ("app in (web, db)", True), ("app in(db)", False), ("app notin (web,db)", False), ("app notin (db)", True),
        ("none notin (db)", True), ("none!=db", True), ("none=db", False), ("app", True), ("none", False),
        ("!none", True), ("!app", False), ("! none", True), ("empty=", True), ("empty", True), ("app=", False),
        ("app in (,web)", True), ("empty in ()", True), ("app=web,tier=front", True), ("app=web,tier=back", False),
        ("app=web , !none", True), ("n>4", True), ("n<5", False), ("app>4", False), ("", True), ("  ", True),
        ("serving.knative.dev/service!=x", True),
    ],
)  # fmt: skip
def test_label_selectors_select_as_kubernetes_does(text: str, matches: bool) -> None:
    assert selectors.parse(text, "", "services").matches(body(LABELS)) is matches


@pytest.mark.parametrize(
    "text",
    ["app in web", "app in (web", "=web", "app=web,", ",", "app web", "app=a b", "!", "-a=b", "app=(a)", "a>b",
    "a in ((", "/a=b", "a==b=c"],
)  # fmt: skip
def test_invalid_label_selectors_are_refused_with_their_text(text: str) -> None:
    with pytest.raises(BadRequestError, match="unable to parse requirement"):
        selectors.parse(text, "", "services")


@pytest.mark.parametrize(
    ("text", "matches"),
    [
        ("metadata.name=x", True), ("metadata.name==x", True), ("metadata.name!=x", False),
        ("metadata.namespace=ns,metadata.name=x", True), ("status.phase=Running", True),
        ("status.phase!=Pending,status.phase!=Terminating", True), ("status.podIP=", True), ("", True),
    ],
)  # fmt: skip
def test_field_selectors_select(text: str, matches: bool) -> None:
    pod = body({}, status={"phase": "Running"})
    assert selectors.parse("", text, "pods").matches(pod) is matches


@pytest.mark.parametrize("text", ["spec.image=x", "name", "metadata.name", "status.phase=Running", "a b=c"])
def test_fields_that_a_kind_is_not_selected_by_are_refused(text: str) -> None:
    with pytest.raises(BadRequestError):
        selectors.parse("", text, "configmaps")


@given(st.text("abc=!,() innot<>./-_", max_size=30), st.dictionaries(st.sampled_from("abc"), st.just("a")))
def test_any_text_is_a_selector_or_refused(text: str, labels: dict[str, str]) -> None:
    with suppress(BadRequestError):
        selectors.parse(text, "", "services").matches(body(labels))


@given(st.dictionaries(st.sampled_from("abc"), st.sampled_from("xy")), st.sampled_from("abc"), st.sampled_from("xy"))
def test_each_selector_and_its_opposite_split_everything(labels: dict[str, str], key: str, value: str) -> None:
    def selects(text: str) -> bool:
        return selectors.parse(text, "", "services").matches(body(labels))

    assert selects(f"{key}={value}") is not selects(f"{key}!={value}")
    assert selects(f"{key} in ({value})") is not selects(f"{key} notin ({value})")
    assert selects(key) is not selects(f"!{key}")


def test_objects_without_labels_can_be_selected() -> None:
    assert selectors.parse("!a", "", "services").matches({"metadata": {"name": "x"}})
