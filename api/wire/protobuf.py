"""Decodes Kubernetes' protobuf request bodies, for the built-in kinds whose Go clients send nothing else. Pure.

Only the fields that the API uses are decoded; others are skipped, as protobuf readers do with unknown fields.

Source: Kubernetes `k8s.io/apimachinery/pkg/runtime/serializer/protobuf` (envelope) and the `generated.proto` of each
group (field numbers).
"""

import base64
from collections.abc import Callable, Iterator, Mapping
from typing import Any

from knoll.values.errors import BadRequestError, UnsupportedMediaTypeError
from knoll.values.json import Json

MEDIA_TYPE = "application/vnd.kubernetes.protobuf"
MAGIC = b"k8s\x00"

Wire = int | bytes
FieldReader = Callable[[Wire], Any]
MessageFields = Mapping[int, tuple[str, str, FieldReader]]
"""Field number to (JSON name, cardinality: `one`, `list` or `map`, reader of a value)."""


def decode(raw: bytes) -> Json:
    """Decode an object in an envelope.

    Raises:
        BadRequestError: malformed protobuf. UnsupportedMediaTypeError: a kind without protobuf support.
    """
    if not raw.startswith(MAGIC):
        raise BadRequestError("the body is not a Kubernetes protobuf object: it does not begin with k8s\\0")
    api_version = kind = ""
    content = b""
    for number, value in _fields(raw[len(MAGIC) :]):
        if number == 1:
            for inner, text in _fields(_bytes(value)):
                if inner == 1:
                    api_version = _text(text)
                elif inner == 2:
                    kind = _text(text)
        elif number == 2:
            content = _bytes(value)
    # `meta.k8s.io/v1`, or the version of the group it is sent to: DeleteOptions is sent under many groups.
    fields = _KINDS.get(("*" if kind == "DeleteOptions" else api_version, kind))
    if fields is None:
        raise UnsupportedMediaTypeError(
            f"{kind[:60] or 'an object without kind'} of {api_version[:60] or 'no version'} is not supported as "
            "protobuf: send application/json"
        )
    return {"apiVersion": api_version, "kind": kind, **_message(fields)(content)}


def _fields(raw: bytes) -> Iterator[tuple[int, Wire]]:
    """(field number, value) pairs. Source: protobuf's encoding, wire types 0, 1, 2 and 5."""
    at = 0
    while at < len(raw):
        tag, at = _varint(raw, at)
        number, wire = tag >> 3, tag & 7
        if wire == 0:
            value, at = _varint(raw, at)
            yield number, value
            continue
        if wire == 2:
            length, at = _varint(raw, at)
        elif wire in (1, 5):
            length = 8 if wire == 1 else 4
        else:
            raise BadRequestError(f"broken protobuf body: wire type {wire} at byte {at}")
        if at + length > len(raw):
            raise BadRequestError(f"broken protobuf body: it ends inside field {number}")
        yield number, raw[at : at + length]
        at += length


def _varint(raw: bytes, at: int) -> tuple[int, int]:
    result = shift = 0
    while at < len(raw) and shift < 70:
        byte = raw[at]
        at += 1
        result |= (byte & 0x7F) << shift
        if byte < 0x80:
            return result & 0xFFFFFFFFFFFFFFFF, at
        shift += 7
    raise BadRequestError("broken protobuf body: unterminated varint")


def _bytes(value: Wire) -> bytes:
    if isinstance(value, int):
        raise BadRequestError("broken protobuf body: expected bytes, got a number")
    return value


def _text(value: Wire) -> str:
    try:
        return _bytes(value).decode()
    except UnicodeDecodeError:
        raise BadRequestError("broken protobuf body: a string is not UTF-8") from None


def _integer(value: Wire) -> int:
    if not isinstance(value, int):
        raise BadRequestError("broken protobuf body: expected a number, got bytes")
    return value - (1 << 64) if value >= 1 << 63 else value


def _boolean(value: Wire) -> bool:
    return bool(_integer(value))


def _base64(value: Wire) -> str:
    return base64.b64encode(_bytes(value)).decode()


def _int_or_string(value: Wire) -> int | str:
    fields = dict(_fields(_bytes(value)))
    return _text(fields.get(3, b"")) if fields.get(1) else _integer(fields.get(2, 0))


def _quantity(value: Wire) -> str:
    return _text(dict(_fields(_bytes(value))).get(1, b""))


def _message(fields: MessageFields) -> Callable[[Wire], Json]:
    def read(value: Wire) -> Json:
        result: Json = {}
        for number, raw in _fields(_bytes(value)):
            if number not in fields:
                continue
            name, repeats, reader = fields[number]
            if repeats == "one":
                result[name] = reader(raw)
            elif repeats == "list":
                result.setdefault(name, []).append(reader(raw))
            else:
                pair = dict(_fields(_bytes(raw)))
                result.setdefault(name, {})[_text(pair.get(1, b""))] = reader(pair.get(2, b""))
        # Go clients also write empty scalars; JSON omits them.
        return {key: decoded for key, decoded in result.items() if decoded != ""}

    return read


_META: MessageFields = {
    1: ("name", "one", _text),
    2: ("generateName", "one", _text),
    3: ("namespace", "one", _text),
    5: ("uid", "one", _text),
    6: ("resourceVersion", "one", _text),
    11: ("labels", "map", _text),
    12: ("annotations", "map", _text),
    13: (
        "ownerReferences",
        "list",
        _message({
            1: ("kind", "one", _text), 3: ("name", "one", _text), 4: ("uid", "one", _text),
            5: ("apiVersion", "one", _text), 6: ("controller", "one", _boolean),
            7: ("blockOwnerDeletion", "one", _boolean),
        }),
    ),
    14: ("finalizers", "list", _text),
}  # fmt: skip
_METADATA = ("metadata", "one", _message(_META))
_SERVICE_PORT: MessageFields = {
    1: ("name", "one", _text), 2: ("protocol", "one", _text), 3: ("port", "one", _integer),
    4: ("targetPort", "one", _int_or_string), 5: ("nodePort", "one", _integer), 6: ("appProtocol", "one", _text),
}  # fmt: skip
_SERVICE_SPEC: MessageFields = {
    1: ("ports", "list", _message(_SERVICE_PORT)), 2: ("selector", "map", _text), 3: ("clusterIP", "one", _text),
    4: ("type", "one", _text), 5: ("externalIPs", "list", _text), 7: ("sessionAffinity", "one", _text),
    8: ("loadBalancerIP", "one", _text), 10: ("externalName", "one", _text),
}  # fmt: skip
_ACCESS: MessageFields = {
    1: ("namespace", "one", _text), 2: ("verb", "one", _text), 3: ("group", "one", _text),
    4: ("version", "one", _text), 5: ("resource", "one", _text), 6: ("subresource", "one", _text),
    7: ("name", "one", _text),
}  # fmt: skip
_REFERENCE: MessageFields = {
    1: ("kind", "one", _text), 2: ("namespace", "one", _text), 3: ("name", "one", _text), 4: ("uid", "one", _text),
    5: ("apiVersion", "one", _text), 6: ("resourceVersion", "one", _text), 7: ("fieldPath", "one", _text),
}  # fmt: skip
_RBAC = "rbac.authorization.k8s.io"
_BINDING: MessageFields = {
    1: _METADATA,
    2: ("subjects", "list", _message({
        1: ("kind", "one", _text), 2: ("apiGroup", "one", _text), 3: ("name", "one", _text),
        4: ("namespace", "one", _text),
    })),
    3: ("roleRef", "one", _message({
        1: ("apiGroup", "one", _text), 2: ("kind", "one", _text), 3: ("name", "one", _text),
    })),
}  # fmt: skip
_KINDS: Mapping[tuple[str, str], MessageFields] = {
    ("v1", "ConfigMap"): {
        1: _METADATA, 2: ("data", "map", _text), 3: ("binaryData", "map", _base64), 4: ("immutable", "one", _boolean),
    },
    ("v1", "Secret"): {
        1: _METADATA, 2: ("data", "map", _base64), 3: ("type", "one", _text), 4: ("stringData", "map", _text),
        5: ("immutable", "one", _boolean),
    },
    ("v1", "Namespace"): {
        1: _METADATA, 2: ("spec", "one", _message({1: ("finalizers", "list", _text)})),
    },
    ("v1", "Service"): {1: _METADATA, 2: ("spec", "one", _message(_SERVICE_SPEC))},
    ("v1", "ResourceQuota"): {
        1: _METADATA,
        2: ("spec", "one", _message({1: ("hard", "map", _quantity), 2: ("scopes", "list", _text)})),
    },
    ("v1", "ServiceAccount"): {
        1: _METADATA, 2: ("secrets", "list", _message(_REFERENCE)),
        3: ("imagePullSecrets", "list", _message({1: ("name", "one", _text)})),
        4: ("automountServiceAccountToken", "one", _boolean),
    },
    ("authorization.k8s.io/v1", "SelfSubjectAccessReview"): {
        1: _METADATA,
        2: ("spec", "one", _message({
            1: ("resourceAttributes", "one", _message(_ACCESS)),
            2: ("nonResourceAttributes", "one", _message({1: ("path", "one", _text), 2: ("verb", "one", _text)})),
        })),
    },
    ("authorization.k8s.io/v1", "SelfSubjectRulesReview"): {
        1: _METADATA, 2: ("spec", "one", _message({1: ("namespace", "one", _text)})),
    },
    ("authentication.k8s.io/v1", "TokenReview"): {
        1: _METADATA,
        2: ("spec", "one", _message({1: ("token", "one", _text), 2: ("audiences", "list", _text)})),
    },
    (f"{_RBAC}/v1", "RoleBinding"): _BINDING,
    (f"{_RBAC}/v1", "ClusterRoleBinding"): _BINDING,
    ("authentication.k8s.io/v1", "TokenRequest"): {
        1: _METADATA,
        2: ("spec", "one", _message({1: ("audiences", "list", _text), 4: ("expirationSeconds", "one", _integer)})),
    },
    ("authentication.k8s.io/v1", "SelfSubjectReview"): {1: _METADATA},
    ("*", "DeleteOptions"): {
        1: ("gracePeriodSeconds", "one", _integer),
        2: ("preconditions", "one", _message({1: ("uid", "one", _text), 2: ("resourceVersion", "one", _text)})),
        3: ("orphanDependents", "one", _boolean),
        4: ("propagationPolicy", "one", _text),
        5: ("dryRun", "list", _text),
    },
}  # fmt: skip
"""By (apiVersion, kind)."""
