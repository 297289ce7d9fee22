"""Which library HTTP/2 uses."""

import sys

import pytest

from activator.wire import http2_codecs


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
