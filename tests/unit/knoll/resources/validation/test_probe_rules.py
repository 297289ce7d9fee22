"""Invalid probes of a Revision, with Knative's messages."""

import pytest

from knoll.values.json import Json
from tests.unit.knoll.resources.revision_specs import C, container, problems_of

PROBES: list[tuple[str, Json, list[str]]] = [
    ("none of the actions", {"periodSeconds": 1}, []),
    (
        "two actions",
        {"tcpSocket": {}, "httpGet": {}},
        [f"expected exactly one, got both: {C}.readinessProbe.httpGet, {C}.readinessProbe.tcpSocket"],
    ),
    (
        "another port's name",
        {"httpGet": {"port": "imap"}},
        [f"invalid value: imap: {C}.readinessProbe.httpGet.port\nProbe port must match container port"],
    ),
    (
        "a port that is none",
        {"tcpSocket": {"port": 70000}},
        [f"expected 0 <= 70000 <= 65535: {C}.readinessProbe.tcpSocket.port"],
    ),
    ("lower case scheme", {"httpGet": {"scheme": "https"}}, []),
    (
        "a scheme that is none",
        {"httpGet": {"scheme": "ftp"}},
        [f"invalid value: ftp: {C}.readinessProbe.httpGet.scheme\nmust be HTTP or HTTPS"],
    ),
    ("no command", {"exec": {}}, [f"missing field(s): {C}.readinessProbe.exec.command"]),
    (
        "a grace of its own",
        {"tcpSocket": {}, "terminationGracePeriodSeconds": 3},
        [f"must not set the field(s): {C}.readinessProbe.terminationGracePeriodSeconds"],
    ),
    (
        "a threshold without period",
        {"tcpSocket": {}, "failureThreshold": 2},
        [f"failureThreshold is disallowed when periodSeconds is zero: {C}.readinessProbe.failureThreshold"],
    ),
    (
        "a timeout without period",
        {"tcpSocket": {}, "timeoutSeconds": 2},
        [f"timeoutSeconds is disallowed when periodSeconds is zero: {C}.readinessProbe.timeoutSeconds"],
    ),
    (
        "a period below zero",
        {"tcpSocket": {}, "periodSeconds": -1},
        [f"expected 0 <= -1 <= 2147483647: {C}.readinessProbe.periodSeconds"],
    ),
    (
        "a delay below zero",
        {"tcpSocket": {}, "initialDelaySeconds": -1},
        [f"expected 0 <= -1 <= 2147483647: {C}.readinessProbe.initialDelaySeconds"],
    ),
    (
        "successes below one",
        {"tcpSocket": {}, "successThreshold": -1},
        [f"expected 1 <= -1 <= 2147483647: {C}.readinessProbe.successThreshold"],
    ),
    (
        "a timeout below one",
        {"tcpSocket": {}, "periodSeconds": 1, "timeoutSeconds": -1},
        [f"expected 0 <= -1 <= 2147483647: {C}.readinessProbe.timeoutSeconds"],
    ),
]


@pytest.mark.parametrize(("probe", "problems"), [row[1:] for row in PROBES], ids=[row[0] for row in PROBES])
def test_readiness_probes(probe: Json, problems: list[str]) -> None:
    assert problems_of(container(readinessProbe=probe)) == problems


def test_a_probe_may_name_its_own_port() -> None:
    spec = container(ports=[{"containerPort": 80, "name": "h2c"}], readinessProbe={"tcpSocket": {"port": "h2c"}})
    assert problems_of(spec) == []


def test_a_liveness_probe_must_do_something() -> None:
    actions = ", ".join(f"{C}.livenessProbe.{name}" for name in ("exec", "grpc", "httpGet", "tcpSocket"))
    assert problems_of(container(livenessProbe={"periodSeconds": 1})) == [
        f"expected exactly one, got neither: {actions}"
    ]
