"""Bytes of the gRPC health protocol."""

import pytest

from autoscaler.probes.grpc_health import GrpcHealthError, evaluate, request

OK = {":status": "200", "grpc-status": "0"}


@pytest.mark.parametrize(
    ("service", "framed"),
    [
        ("", b"\x00\x00\x00\x00\x00"),
        ("db", b"\x00\x00\x00\x00\x04\x0a\x02db"),
        ("x" * 200, b"\x00\x00\x00\x00\xcb\x0a\xc8\x01" + b"x" * 200),
    ],
)
def test_requests_are_framed_protobuf(service: str, framed: bytes) -> None:
    assert request(service) == framed


def test_serving_is_fine() -> None:
    evaluate(b"\x00\x00\x00\x00\x02\x08\x01", OK)


@pytest.mark.parametrize(
    ("body", "headers", "message"),
    [
        (b"\x00\x00\x00\x00\x02\x08\x02", OK, "NOT_SERVING"),
        (b"\x00\x00\x00\x00\x00", OK, "UNKNOWN"),
        (b"", {":status": "200", "grpc-status": "12"}, "does not implement"),
        (b"", {":status": "200", "grpc-status": "5", "grpc-message": "unknown service"}, "unknown service"),
        (b"<html>", {":status": "404"}, "HTTP 404"),
    ],
)
def test_every_other_status_is_named(body: bytes, headers: dict[str, str], message: str) -> None:
    with pytest.raises(GrpcHealthError, match=message):
        evaluate(body, headers)
