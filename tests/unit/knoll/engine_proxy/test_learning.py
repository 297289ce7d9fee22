"""What the engine proxy learns from responses of the engine."""

from pathlib import Path

import pytest

from knoll.engine_proxy.policy import AUTOSCALER, ProxyPolicy
from knoll.engine_proxy.proxy import Gate


@pytest.mark.parametrize("body", [b"", b"{", b"[]", b"[1]", b"null", b"1", b'"text"', b"{}"])
def test_a_response_without_an_id_is_ignored(body: bytes) -> None:
    Gate(ProxyPolicy(AUTOSCALER, "knoll", "knoll-instances"), Path("/engine.sock")).learn(body)
