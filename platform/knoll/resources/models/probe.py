"""Probes of a container."""

from knoll.resources.models.base import Int32, IntOrString, Model, Refused


class ExecAction(Model):
    """A command that ends with 0 when all is well."""

    command: tuple[str, ...] = ()
    """The command and its arguments; no shell."""


class HTTPHeader(Model):
    """A header of a probe's request."""

    name: str = ""
    """Name of the header."""
    value: str = ""
    """Its value."""


class HTTPGetAction(Model):
    """A request that is answered with 200 to 399 when all is well."""

    path: str = ""
    """Path, possibly with a query. Default `/`."""
    port: IntOrString | None = None
    """Port; 0 is the container's port."""
    host: str = ""
    """Host to connect to; the instance itself when empty."""
    scheme: str = ""
    """`HTTP` or `HTTPS`."""
    http_headers: tuple[HTTPHeader, ...] = ()
    """Headers to send."""


class TCPSocketAction(Model):
    """A connection that is accepted when all is well."""

    port: IntOrString | None = None
    """Port; 0 is the container's port."""
    host: str = ""
    """Host to connect to; the instance itself when empty."""


class GRPCAction(Model):
    """A call of the standard gRPC health service that answers SERVING when all is well."""

    port: Int32 | None = None
    """Port; 0 is the container's port."""
    service: str | None = None
    """Name of the service that is asked for; empty is the whole server."""


class Probe(Model):
    """How a container is asked whether it is well."""

    exec: ExecAction | None = None
    """A command run in the container."""
    http_get: HTTPGetAction | None = None
    """An HTTP request."""
    tcp_socket: TCPSocketAction | None = None
    """A TCP connection."""
    grpc: GRPCAction | None = None
    """A gRPC health check."""
    initial_delay_seconds: Int32 = 0
    """Seconds to wait before the first try."""
    timeout_seconds: Int32 = 0
    """Seconds one try may take."""
    period_seconds: Int32 = 0
    """Seconds between tries. 0 for a readiness probe: as fast as possible until the first success."""
    success_threshold: Int32 = 0
    """Successes in a row that make it well again."""
    failure_threshold: Int32 = 0
    """Failures in a row that make it unwell."""
    termination_grace_period_seconds: Refused = None
