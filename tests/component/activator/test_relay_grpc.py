"""The gRPC tests with the instance on another node: h2c at both ends, the relay between them."""

from collections.abc import AsyncIterator
from pathlib import Path

import grpc
import grpc.aio
import pytest

from knoll.messages.endpoints import Endpoint
from knoll.messages.routing import RequestPolicy
from tests.component.activator.machines import Machines, machines
from tests.component.activator.stage import HOST, Stage
from tests.component.activator.test_http2 import (
    Shouts,
    test_a_cancelled_call_is_cancelled_at_the_instance,
    test_a_client_streams_more_than_any_window,
    test_a_server_streams,
    test_a_unary_call_passes_with_its_trailers,
    test_an_error_status_is_passed_on,
    test_both_sides_stream_in_turns,
    test_http_1_is_translated_for_an_h2c_instance,
    test_many_calls_at_once_each_get_their_own_answer,
)
from tests.waiting import eventually

__all__ = [
    "test_a_cancelled_call_is_cancelled_at_the_instance",
    "test_a_client_streams_more_than_any_window",
    "test_a_server_streams",
    "test_a_unary_call_passes_with_its_trailers",
    "test_an_error_status_is_passed_on",
    "test_both_sides_stream_in_turns",
    "test_http_1_is_translated_for_an_h2c_instance",
    "test_many_calls_at_once_each_get_their_own_answer",
]


@pytest.fixture
async def pair(tmp_path: Path) -> AsyncIterator[Machines]:
    async with machines(tmp_path) as made:
        yield made
        await eventually(lambda: not made[0].in_flight("grpc"))
        await eventually(lambda: not made[1].in_flight("grpc"))
        assert not made[1].relayed("grpc")


@pytest.fixture
async def stage(pair: Machines) -> Stage:
    return pair[0].stage


@pytest.fixture
async def shouts(pair: Machines) -> AsyncIterator[Shouts]:
    handler = Shouts()
    server = grpc.aio.server()
    server.add_generic_rpc_handlers((handler,))
    port = server.add_insecure_port("127.0.0.1:0")
    await server.start()
    pair.route(RequestPolicy(h2c=True))
    pair.endpoints(Endpoint("grpc", "127.0.0.1", port, node="n2"))
    yield handler
    await server.stop(0)


@pytest.fixture
async def channel(stage: Stage) -> AsyncIterator[grpc.aio.Channel]:
    options = [("grpc.default_authority", HOST), ("grpc.enable_http_proxy", 0)]
    async with grpc.aio.insecure_channel(f"127.0.0.1:{stage.port}", options=options) as channel:
        yield channel
