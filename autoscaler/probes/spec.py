"""What a probe checks, and how often. Plain values with Kubernetes' defaults."""

from collections.abc import Sequence
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class HttpCheck:
    """A GET that must return a status of 200 to 399."""

    port: int
    path: str = "/"
    """Including its query, if any."""
    scheme: str = "http"
    """`http` or `https` in any case; certificates are not verified, as in kubelet."""
    host: str = ""
    """Where to connect instead of the instance's own address; empty is the instance."""
    headers: Sequence[tuple[str, str]] = ()


@dataclass(frozen=True, slots=True)
class TcpCheck:
    """A connection that must be accepted."""

    port: int
    host: str = ""


@dataclass(frozen=True, slots=True)
class ExecCheck:
    """A command in the container that must exit with 0."""

    command: Sequence[str]


@dataclass(frozen=True, slots=True)
class GrpcCheck:
    """`grpc.health.v1.Health/Check` must return SERVING."""

    port: int
    service: str = ""


Check = HttpCheck | TcpCheck | ExecCheck | GrpcCheck


@dataclass(frozen=True, slots=True)
class ProbeSpec:
    """One probe of one container."""

    check: Check
    initial_delay_seconds: float = 0.0
    period_seconds: float = 10.0
    """0 is Knative's eager probing: every few milliseconds until the first success, then every ten seconds."""
    timeout_seconds: float = 1.0
    success_threshold: int = 1
    failure_threshold: int = 3
    eager: bool = False
    """Probe early until the first success; see `schedule`. False for liveness: nothing waits for its success."""


@dataclass(frozen=True, slots=True)
class Probes:
    """The probes of one container; None always passes."""

    startup: ProbeSpec | None = None
    readiness: ProbeSpec | None = None
    liveness: ProbeSpec | None = None
