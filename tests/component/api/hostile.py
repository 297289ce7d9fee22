"""Malicious bodies, and bodies that were corrupted on the way."""

from collections.abc import Iterator

import orjson

MIB = 1024 * 1024


def whole(kind: str, inside: str, api_version: str = "v1") -> bytes:
    """JSON of an object that is valid except for what `inside` adds."""
    return f'{{"apiVersion":"{api_version}","kind":"{kind}","metadata":{{"name":"one"}},{inside}}}'.encode()


def json_bodies() -> Iterator[tuple[str, bytes]]:
    """(name, body)."""
    yield "nothing", b""
    yield "white space only", b" \n\t " * 1000
    yield "NUL", b"\0"
    yield "NUL after the end", whole("ConfigMap", '"data":{}') + b"\0"
    yield "NUL as an escape", whole("ConfigMap", '"data":{"a":"\\u0000","\\u0000":"b"}')
    yield "NUL in a name", b'{"apiVersion":"v1","kind":"ConfigMap","metadata":{"name":"a\\u0000b"}}'
    yield "half a surrogate", whole("ConfigMap", '"data":{"a":"\\ud800"}')
    yield "invalid UTF-8", b'{"apiVersion":"v1","kind":"ConfigMap","metadata":{"name":"\xff\xfe"}}'
    yield "an overlong encoding", b'{"apiVersion":"v1","kind":"\xc0\xaf","metadata":{}}'
    yield "UTF-16", '{"apiVersion":"v1","kind":"ConfigMap"}'.encode("utf-16")
    yield "UTF-32", '{"apiVersion":"v1","kind":"ConfigMap"}'.encode("utf-32")
    yield "a byte order mark", b"\xef\xbb\xbf" + whole("ConfigMap", '"data":{}')
    yield "Latin-1", '{"apiVersion":"v1","kind":"ConfigMap","metadata":{"name":"ü"}}'.encode("latin-1")
    yield "cut in the middle", whole("ConfigMap", '"data":{"a":"b"}')[:-9]
    yield "a list", b"[" + b"null," * 1000 + b"null]"
    yield "every scalar", b"true"
    yield "a number of a million digits", b'{"apiVersion":' + b"9" * MIB + b"}"
    yield "a fraction of a million digits", b'{"a":0.' + b"1" * MIB + b"}"
    yield "an infinite number", whole("ConfigMap", '"data":{"a":1e999999999}')
    yield "not a number", whole("ConfigMap", '"data":{"a":NaN,"b":-Infinity}')
    yield "a generation beyond 64 bits", whole("Service", '"spec":{"ports":[{"port":' + "9" * 400 + "}]}")
    yield (
        "a huge resourceVersion",
        whole("ConfigMap", '"data":{}').replace(b'"name"', b'"resourceVersion":"' + b"9" * 5000 + b'","name"'),
    )
    yield (
        "a resourceVersion of other digits",
        whole("ConfigMap", '"data":{}').replace(b'"name"', '"resourceVersion":"²３","name"'.encode()),
    )
    yield "lists a million deep", b"[" * MIB
    yield "lists a thousand deep, closed", b'{"spec":' + b"[" * 1000 + b"]" * 1000 + b"}"
    yield "objects a hundred thousand deep", b'{"a":' * 100_000 + b"1" + b"}" * 100_000
    yield "a million values", b'{"a":[' + b"0," * (MIB - 1) + b"0]}"
    yield "a hundred thousand objects", b'{"a":[' + b"{}," * 99_999 + b"{}]}"
    yield "a hundred thousand keys", orjson.dumps({f"k{number}": 0 for number in range(100_000)})
    yield "the same key a hundred thousand times", b"{" + b'"a":0,' * 99_999 + b'"a":0}'
    yield "a text of three million characters", whole("ConfigMap", '"data":{"a":"' + "x" * (3 * MIB - 1000) + '"}')
    yield "a text of a million escapes", whole("ConfigMap", '"data":{"a":"' + "\\u0101" * (MIB // 3) + '"}')
    yield "an unknown key of a million characters", whole("ConfigMap", '"' + "k" * MIB + '":1')
    yield "unknown keys of control characters", whole("ConfigMap", '"\\r\\nSet-Cookie: a=b\\u0001":1')
    yield (
        "a thousand owners and finalizers",
        whole("ConfigMap", '"data":{}').replace(
            b'"name"',
            b'"finalizers":[' + b'"a.b/c",' * 999 + b'"a.b/c"],"ownerReferences":[' + b"{}," * 999 + b'{}],"name"',
        ),
    )
    yield "ten million bytes", b'{"a":"' + b"x" * (10 * MIB) + b'"}'


def yaml_bodies() -> Iterator[tuple[str, bytes]]:
    """(name, body)."""
    laughs = "a0: &a0 [lol, lol, lol, lol, lol, lol, lol, lol, lol]\n" + "".join(
        f"a{depth}: &a{depth} [{', '.join([f'*a{depth - 1}'] * 9)}]\n" for depth in range(1, 12)
    )
    merged = "a0: &a0 {k0: v}\n" + "".join(
        f"a{depth}: &a{depth} {{<<: [{', '.join([f'*a{depth - 1}'] * 9)}], k{depth}: v}}\n" for depth in range(1, 12)
    )
    yield "a billion laughs", laughs.encode()
    yield "a billion merged laughs", merged.encode()
    yield "a long text by a thousand aliases", b"a: &a '" + b"x" * MIB + b"'\nb: [" + b"*a, " * 1000 + b"*a]\n"
    yield "a long key by a thousand aliases", b"- &a " + b"x" * 1000 + b"\n" + b"- {*a : 1}\n" * 1000
    yield "an anchor in itself", b"a: &a [*a]\n"
    yield "an alias before its anchor", b"a: *b\nb: &b 1\n"
    yield "a hundred thousand anchors", b"".join(b"a%d: &a%d 1\n" % (n, n) for n in range(100_000))
    yield "flow lists a million deep", b"a: " + b"[" * MIB
    yield "flow maps a million deep", b"{a: " * (MIB // 4)
    yield "blocks ten thousand deep", b"".join(b" " * depth + b"a:\n" for depth in range(2000))
    yield "sequences in one line", b"- " * 100_000
    yield "a Python object", b"!!python/object/apply:os.system ['true']\n"
    yield "a tag of a million characters", b"!" + b"a" * MIB + b" x\n"
    yield "sets and ordered maps", b"a: !!set {b}\nc: !!omap [d: e]\n"
    yield "bytes", b"a: !!binary '=====not base64'\n"
    yield "a number of a million digits", b"a: " + b"9" * MIB + b"\n"
    yield "numbers in base 60", b"a: " + b"59:" * 10_000 + b"59\n"
    yield "a hexadecimal number of a million digits", b"a: 0x" + b"f" * MIB + b"\n"
    yield "an infinite number", b"a: .inf\nb: .nan\nc: 1e999999\n"
    yield "a date that is none", b"a: 2026-99-99T99:99:99Z\n"
    yield "no key", b"? \n: \n"
    yield "a list as a key", b"? [a, b]\n: c\n"
    yield "ten thousand documents", b"---\na: 1\n" * 10_000
    yield "a million line breaks", b"\n" * MIB
    yield "tabs", b"a:\n\t- b\n"
    yield "control characters", b"a: \x01\x02\x1b\n"
    yield "invalid UTF-8", b"a: \xff\n"
    yield "NUL", b"a: \0\n"
    yield "an endless quote", b"a: '" + b"x" * MIB
    yield "an unknown directive", b"%YAML 9.9\n%TAG ! tag:x,2000:\n---\na: 1\n"
    yield "ten million bytes", b"a: " + b"x" * (10 * MIB) + b"\n"


def field(number: int, content: bytes) -> bytes:
    """A field of bytes, as protobuf writes it."""
    size, written = len(content), bytearray([number << 3 | 2])
    while size > 127:
        written.append(size & 127 | 128)
        size >>= 7
    return bytes(written) + bytes([size]) + content


def enveloped(api_version: str, kind: str, content: bytes) -> bytes:
    """An object as Kubernetes' clients send it in protobuf."""
    return b"k8s\0" + field(1, field(1, api_version.encode()) + field(2, kind.encode())) + field(2, content)


def protobufs() -> dict[str, bytes]:
    """A valid body by its plural."""
    metadata = field(1, field(1, b"one") + field(11, field(1, b"label") + field(2, b"value")))
    entry = field(2, field(1, b"key") + field(2, b"value"))
    port = field(1, b"http") + b"\x18\x50" + field(4, b"\x08\x00\x10\x90\x3f")
    return {
        "configmaps": enveloped("v1", "ConfigMap", metadata + entry),
        "secrets": enveloped("v1", "Secret", metadata + entry + field(3, b"Opaque")),
        "serviceaccounts": enveloped("v1", "ServiceAccount", metadata),
        "services": enveloped("v1", "Service", metadata + field(2, field(1, port))),
    }


def protobuf_bodies() -> Iterator[tuple[str, bytes]]:
    """(name, body)."""
    yield "the magic only", b"k8s\0"
    yield "no magic", b"\x0a\x05hello"
    yield "a length beyond the end", b"k8s\0\x0a\xff\xff\xff\xff\x0f"
    yield "a varint without an end", b"k8s\0" + b"\xff" * MIB
    yield "a group", b"k8s\0\x0b\x0c"
    yield "field 0", b"k8s\0\x02\x01a"
    yield "invalid UTF-8", enveloped("v1", "ConfigMap", field(1, field(1, b"\xff\xfe")))
    yield "a million map entries", enveloped("v1", "ConfigMap", field(2, b"") * (MIB // 2))
    yield "a million unknown fields", enveloped("v1", "ConfigMap", b"\xf8\x01\x01" * (MIB // 2))
    yield "a kind of a million characters", enveloped("v1", "K" * MIB, b"")
    yield "ten million bytes", enveloped("v1", "ConfigMap", field(2, b"x" * (10 * MIB)))
