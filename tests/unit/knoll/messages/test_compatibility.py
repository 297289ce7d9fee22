"""Messages between machines of two versions: what one writes, the other reads.

The models are those of this version. A newer writer sends more fields, an older one fewer: those that were added since,
which is why each of them needs a default.
"""

import importlib
import pkgutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st
from msgspec import inspect

from knoll import messages
from knoll.cluster.bundle import Bundle

REQUIRED = Path(__file__).with_name("required_fields.txt")
"""Fields without a default, by model: what the first version for several machines sends. No field is added to it."""


def models() -> Iterator[type[msgspec.Struct]]:
    for module in pkgutil.iter_modules(messages.__path__):
        for value in vars(importlib.import_module(f"knoll.messages.{module.name}")).values():
            if isinstance(value, type) and issubclass(value, msgspec.Struct) and value.__module__.endswith(module.name):
                yield value
    yield Bundle


ALL = sorted(set(models()), key=lambda model: model.__qualname__)
every_model = pytest.mark.parametrize("model", ALL, ids=lambda model: model.__qualname__)


SIMPLE: dict[type[inspect.Type], st.SearchStrategy[Any]] = {
    inspect.IntType: st.integers(-(2**53), 2**53),
    inspect.FloatType: st.floats(allow_nan=False, allow_infinity=False),
    inspect.StrType: st.text(max_size=8),
    inspect.BytesType: st.binary(max_size=8),
    inspect.BoolType: st.booleans(),
    inspect.NoneType: st.none(),
    inspect.AnyType: st.sampled_from([1, "text", None]),
}


def values(kind: inspect.Type) -> st.SearchStrategy[Any]:
    """Values of a type, as `msgspec.inspect` describes it."""
    match kind:
        case inspect.StructType(cls=cls):
            return st.builds(cls, **{field.name: values(field.type) for field in kind.fields})
        case inspect.UnionType(types=types):
            return st.one_of(*map(values, types))
        case inspect.DictType(key_type=key, value_type=value):
            return st.dictionaries(values(key), values(value), max_size=2)
        case inspect.VarTupleType(item_type=item):
            return st.lists(values(item), max_size=2).map(tuple)
        case inspect.ListType(item_type=item):
            return st.lists(values(item), max_size=2)
        case inspect.LiteralType(values=literals):
            return st.sampled_from(literals)
        case inspect.EnumType(cls=cls):
            return st.sampled_from(list(cls))
    return SIMPLE[type(kind)]


def with_more(sent: Any, kind: inspect.Type) -> Any:
    """What was sent, as a newer version would: with one more field in every message inside it."""
    match kind:
        case inspect.StructType(array_like=True):
            items = [with_more(each, field.type) for each, field in zip(sent, kind.fields, strict=False)]
            return [*items, {"since": "later"}]
        case inspect.StructType():
            types = {field.encode_name: field.type for field in kind.fields}
            return {**{name: with_more(each, types[name]) for name, each in sent.items()}, "later": {"since": "later"}}
        case inspect.UnionType(types=types):
            structs = [each for each in types if isinstance(each, inspect.StructType)]
            return with_more(sent, structs[0]) if structs and sent is not None else sent
        case inspect.DictType(value_type=value):
            return {key: with_more(each, value) for key, each in sent.items()}
        case inspect.VarTupleType(item_type=item) | inspect.ListType(item_type=item):
            return [with_more(each, item) for each in sent]
    return sent


@every_model
@given(data=st.data())
def test_more_fields_of_a_newer_version_are_ignored(model: type[msgspec.Struct], data: st.DataObject) -> None:
    kind = inspect.type_info(model)
    value = data.draw(values(kind))
    newer = with_more(msgspec.json.decode(msgspec.json.encode(value)), kind)
    assert msgspec.json.decode(msgspec.json.encode(newer), type=model) == value


@every_model
@given(data=st.data())
def test_fields_that_an_older_version_does_not_send_have_defaults(
    model: type[msgspec.Struct], data: st.DataObject
) -> None:
    kind = inspect.type_info(model)
    assert isinstance(kind, inspect.StructType)
    value = data.draw(values(kind))
    sent = msgspec.json.decode(msgspec.json.encode(value))
    required = [field for field in kind.fields if field.required]
    if kind.array_like:
        older: Any = sent[: len(required)]
    else:
        older = {name: each for name, each in sent.items() if name in {field.encode_name for field in required}}
    read = msgspec.json.decode(msgspec.json.encode(older), type=model)
    for field in kind.fields:
        expected = getattr(value, field.name) if field.required else default_of(field)
        assert getattr(read, field.name) == expected


def default_of(field: inspect.Field) -> Any:
    return field.default if field.default is not msgspec.NODEFAULT else field.default_factory()


def test_no_message_requires_a_field_that_an_older_version_does_not_send() -> None:
    lines = (line.partition(":") for line in REQUIRED.read_text().splitlines())
    listed = {name: fields.split() for name, _, fields in lines}
    now = {}
    for model in ALL:
        kind = inspect.type_info(model)
        assert isinstance(kind, inspect.StructType)
        now[model.__qualname__] = [field.encode_name for field in kind.fields if field.required]
    for name, fields in now.items():
        # A message that is new as a whole may require what it likes.
        more = set(fields) - set(listed.get(name, fields))
        assert not more, f"{name}: give a default to {', '.join(sorted(more))}: an older version does not send it"
