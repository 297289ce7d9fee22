"""Request bodies: everything well-formed is read, everything else is refused within bounds."""

from contextlib import suppress
from typing import Any

import orjson
import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from api.wire import bodies, protobuf
from knoll.values.errors import BadRequestError, UnsupportedMediaTypeError

text = st.text(st.characters(codec="utf-8", exclude_categories=["Cs", "Cc"]), max_size=20)
scalars = st.none() | st.booleans() | st.integers(-(2**53), 2**53) | text
values = st.recursive(
    scalars, lambda inner: st.lists(inner, max_size=4) | st.dictionaries(text, inner, max_size=4), max_leaves=20
)
objects = st.dictionaries(text, values, min_size=1, max_size=5)


@given(objects)
def test_json_comes_back_as_it_was(value: dict[str, Any]) -> None:
    assert bodies.parse(orjson.dumps(value), "application/json; charset=utf-8").value == value


@given(objects, st.booleans())
def test_yaml_of_any_object_comes_back_as_it_was(value: dict[str, Any], flow: bool) -> None:
    written = yaml.safe_dump(value, default_flow_style=flow, allow_unicode=True)
    assert bodies.parse(written.encode(), "application/yaml").value == value


@given(objects)
def test_the_format_is_detected_under_curls_default_type(value: dict[str, Any]) -> None:
    assert bodies.parse(orjson.dumps(value), "application/x-www-form-urlencoded").value == value


@given(st.binary(max_size=300), st.sampled_from(["application/json", "application/yaml", "", protobuf.MEDIA_TYPE]))
def test_any_bytes_are_read_or_refused(raw: bytes, content_type: str) -> None:
    with suppress(BadRequestError, UnsupportedMediaTypeError):
        orjson.dumps(bodies.parse(raw, content_type).value)


@given(st.text("abc:-[]{}&*<>!|?#\"'%@`\n\t ,~0123456789.eE+_x", max_size=120))
def test_any_yaml_like_text_is_read_or_refused(written: str) -> None:
    with suppress(BadRequestError):
        orjson.dumps(bodies.parse_yaml(written.encode()).value)


@given(st.binary(max_size=200), st.sampled_from(sorted(protobuf._KINDS)))
def test_any_protobuf_is_read_or_refused(raw: bytes, identity: tuple[str, str]) -> None:
    def field(number: int, content: bytes) -> bytes:
        size = len(content)
        return (
            bytes([number << 3 | 2]) + (bytes([size]) if size < 128 else bytes([size & 127 | 128, size >> 7])) + content
        )

    meta = field(1, identity[0].encode()) + field(2, identity[1].encode())
    with suppress(BadRequestError, UnsupportedMediaTypeError):
        orjson.dumps(protobuf.decode(protobuf.MAGIC + field(1, meta) + field(2, raw)))


BOMB = "a: &a [x,x,x,x,x,x,x,x,x]\n" + "".join(
    f"{after}: &{after} [{','.join(['*' + before] * 9)}]\n"
    for before, after in zip("abcdefgh", "bcdefghi", strict=True)
)


@pytest.mark.parametrize(
    ("written", "message"),
    [
        pytest.param(BOMB, "after the expansion of aliases", id="alias bomb"),
        pytest.param(
            f"a: &a {'x' * 500_000}\nb: [{','.join(['*a'] * 1000)}]",
            "after the expansion of aliases",
            id="long text bomb",
        ),
        pytest.param("a: &a [*a]", "contains itself", id="an alias of itself"),
        pytest.param("[" * 100_000, "nested deeper", id="deep flow"),
        pytest.param("{a: " * 100_000, "nested deeper", id="deep mappings"),
        pytest.param("\n".join(" " * n + "a:" for n in range(200)), "nested deeper", id="deep block"),
        pytest.param("a: *undefined", "not defined", id="unknown alias"),
        pytest.param("a: 1\n---\nb: 2", "2 YAML documents", id="two documents"),
        pytest.param("", "no body", id="nothing"),
        pytest.param("# only a comment", "no body", id="a comment"),
        pytest.param("a: !!python/object/apply:os.system [x]", None, id="a python tag on a list"),
        pytest.param("a: !!python/name:os.system x", "not supported", id="a python tag"),
        pytest.param("a: .inf", "JSON", id="infinity"),
        pytest.param("? [a, b]\n: c", "keys must be strings", id="a list as key"),
        pytest.param("a: b: c", "line 1, column 5", id="broken"),
        pytest.param("a: 99999999999999999999999", "too large", id="a huge number"),
        pytest.param("- a\n" * 100_001, "more than 100000 values", id="very many values"),
        pytest.param("a: &b {c: d}\n<<: [1]", "can only merge mappings", id="a merge of numbers"),
    ],
)
def test_hostile_yaml_is_refused_with_the_reason(written: str, message: str | None) -> None:
    if message is None:
        # Tags of collections are ignored: nothing is ever made of them but lists and objects.
        assert bodies.parse_yaml(written.encode()).value == {"a": ["x"]}
        return
    with pytest.raises(BadRequestError, match=message):
        bodies.parse_yaml(written.encode())


def test_deep_json_is_refused() -> None:
    for raw in (b"[" * 2000 + b"]" * 2000, b'{"a":' * 200 + b"1" + b"}" * 200):
        with pytest.raises(BadRequestError):
            bodies.parse(raw, "application/json")


def test_yaml_reads_scalars_as_kubernetes_does() -> None:
    written = "{a: 2020-01-01, b: 12:30, c: yes, d: 0x10, e: '1', f: ~, g: 1.5, h: !!str 7, i: 010, j: null}"
    assert bodies.parse_yaml(written.encode()).value == {
        "a": "2020-01-01", "b": "12:30", "c": True, "d": 16, "e": "1", "f": None, "g": 1.5, "h": "7", "i": 8, "j": None,
    }  # fmt: skip


def test_anchors_and_merges_work_and_share_nothing() -> None:
    value = bodies.parse_yaml(b"x: &x {a: 1, b: 2}\ny: {<<: *x, b: 3}\nz: *x\n").value
    assert value == {"x": {"a": 1, "b": 2}, "y": {"a": 1, "b": 3}, "z": {"a": 1, "b": 2}}
    value["z"]["a"] = 9
    assert value["x"]["a"] == 1


def test_repeated_keys_are_reported_with_their_path() -> None:
    parsed = bodies.parse_yaml(b"a:\n  b: 1\n  b: 2\nc: 1\nc: 2\n")
    assert parsed.duplicates == ["a.b", "c"]
    assert bodies.json_duplicates(b'{"a":{"b":1,"b":2}}') == ["b"]


def test_unknown_types_are_named() -> None:
    with pytest.raises(UnsupportedMediaTypeError, match="application/xml"):
        bodies.parse(b"<a/>", "application/xml")


def test_json_under_another_name_is_read_as_json() -> None:
    raw = b'{"a": "\\ud83d\\ude00", "b": 1, "b": 2}'
    for content_type in ("application/yaml", "application/x-www-form-urlencoded", ""):
        parsed = bodies.parse(raw, content_type)
        assert parsed.value == {"a": "\U0001f600", "b": 2}
        assert parsed.duplicates == ["b"]


def test_json_of_very_many_values_is_refused_and_very_many_commas_are_not() -> None:
    with pytest.raises(BadRequestError, match="more than 100000 values"):
        bodies.parse(b"[" + b"{}," * 100_000 + b"{}]", "application/json")
    assert len(bodies.parse(b'{"a":"' + b"," * 300_000 + b'"}', "application/json").value["a"]) == 300_000


def test_a_very_long_plain_scalar_is_text() -> None:
    assert bodies.parse_yaml(b"a: " + b"9" * 100_000).value == {"a": "9" * 100_000}
