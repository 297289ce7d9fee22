"""Probes of a container."""

from knoll.resources.models.base import Int32, IntOrString, Model, Refused


class ExecAction(Model):
    """A command, which succeeds with exit code 0."""

    command: tuple[str, ...] = ()
    """The command and its arguments, executed without a shell."""


class HTTPHeader(Model):
    """A header of the probe's request."""

    name: str = ""
    """Name of the header."""
    value: str = ""
    """Value of the header."""


class HTTPGetAction(Model):
    """An HTTP GET request, which succeeds with status 200 to 399."""

    path: str = ""
    """Path, possibly with a query. Default `/`."""
    port: IntOrString | None = None
    """Port; 0 is the container's port."""
    host: str = ""
    """Host to connect to; by default the instance."""
    scheme: str = ""
    """`HTTP` or `HTTPS`."""
    http_headers: tuple[HTTPHeader, ...] = ()
    """Headers to send."""


class TCPSocketAction(Model):
    """A TCP connection, which succeeds when it is accepted."""

    port: IntOrString | None = None
    """Port; 0 is the container's port."""
    host: str = ""
    """Host to connect to; by default the instance."""


class GRPCAction(Model):
    """A call of the gRPC health service, which succeeds with the response SERVING."""

    port: Int32 | None = None
    """Port; 0 is the container's port."""
    service: str | None = None
    """Name of the service to check; empty for the whole server."""


class Probe(Model):
    """A health check of a container; exactly one action must be set."""

    exec: ExecAction | None = None
    """A command run in the container."""
    http_get: HTTPGetAction | None = None
    """An HTTP request."""
    tcp_socket: TCPSocketAction | None = None
    """A TCP connection."""
    grpc: GRPCAction | None = None
    """A gRPC health check."""
    initial_delay_seconds: Int32 = 0
    """Delay before the first probe, in seconds."""
    timeout_seconds: Int32 = 0
    """Timeout of a probe, in seconds."""
    period_seconds: Int32 = 0
    """Interval of the probe, in seconds. 0 for a readiness probe: as often as possible until the first success."""
    success_threshold: Int32 = 0
    """Consecutive successes after which the probe is considered successful."""
    failure_threshold: Int32 = 0
    """Consecutive failures after which the probe is considered failed."""
    termination_grace_period_seconds: Refused = None
