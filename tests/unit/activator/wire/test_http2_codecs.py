"""Which library HTTP/2 uses."""

import sys
from typing import Any

import pytest

from activator.wire import http2_codecs
from activator.wire.http2_codec import CodecFactory, CodecOptions, RequestNotSent
from activator.wire.http2_errors import Setting
from activator.wire.http2_frames import HEADERS, RST_STREAM, SETTINGS, Frame

GET = ((b":method", b"GET"), (b":scheme", b"http"), (b":authority", b"a"), (b":path", b"/"))


@pytest.mark.parametrize(("name", "codec"), [("h2", http2_codecs.h2), ("ngh2", http2_codecs.ngh2)])
def test_a_setting_names_the_library(name: str, codec: object) -> None:
    assert http2_codecs.named(name) is codec


def test_the_faster_library_is_used_where_it_is_installed(monkeypatch: pytest.MonkeyPatch) -> None:
    assert http2_codecs.named("auto") is http2_codecs.ngh2
    monkeypatch.setitem(sys.modules, "ngh2", None)
    assert http2_codecs.named("auto") is http2_codecs.h2


def test_a_library_that_is_required_and_missing_is_an_error(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "ngh2", None)
    with pytest.raises(ImportError):
        http2_codecs.named("ngh2")


class Ignores:
    """A handler of frames."""

    def __getattr__(self, name: str) -> Any:
        return lambda *arguments: None


def kinds(data: bytes) -> list[int]:
    result = []
    while data:
        size = int.from_bytes(data[:3])
        result.append(data[3])
        data = data[9 + size :]
    return result


@pytest.mark.parametrize("codec", [http2_codecs.h2, http2_codecs.ngh2], ids=["h2", "ngh2"])
def test_a_request_beyond_the_peers_limit_is_not_sent(codec: CodecFactory) -> None:
    client = codec(Ignores(), lambda: 0.0, CodecOptions(True, {Setting.ENABLE_PUSH: 0}, 2**20))
    client.feed(Frame(SETTINGS, 0, 0, b"\0\3\0\0\0\1").wire())
    client.work(1.0)
    client.output()
    assert (client.max_streams, client.request(GET, False)) == (1, 1)
    with pytest.raises(RequestNotSent):
        client.request(GET, True)
    assert client.send_data(1, b"body", True)
    assert [kind for kind in kinds(client.output()) if kind in (HEADERS, RST_STREAM)] == [HEADERS]
