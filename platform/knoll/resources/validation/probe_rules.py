"""Validation of probes. Pure."""

import re
from collections.abc import Iterator

from knoll.resources.models.probe import Probe
from knoll.resources.validation.problems import invalid, missing_one_of, multiple_one_of, out_of_bounds
from knoll.resources.validation.unsupported_fields import refused
from knoll.values.errors import FieldError
from knoll.values.names import CONTROL, printable
from knoll.values.numbers import INT32_MAX

_SCHEMES = frozenset({"", "HTTP", "HTTPS"})
_MAX_PORT = 65535
_OWN_HOSTS = frozenset({"localhost", "127.0.0.1"})
"""Hosts that mean the instance itself to Knative's queue-proxy, which runs in its network namespace."""
_TOKEN = re.compile(r"[-!#$%&'*+.^_`|~0-9A-Za-z]+")


def probe_problems(probe: Probe | None, path: str, port_name: str) -> Iterator[FieldError]:
    """Yield the problems of any probe.

    Args:
        port_name: name of the serving port, the only one that a probe can use.
    """
    if probe is None:
        return
    yield from refused(probe, path)
    actions = {"httpGet": probe.http_get, "tcpSocket": probe.tcp_socket, "exec": probe.exec, "grpc": probe.grpc}
    present = [name for name, action in actions.items() if action is not None]
    if not present:
        yield missing_one_of(*(f"{path}.{name}" for name in actions))
    elif len(present) > 1:
        yield multiple_one_of(*(f"{path}.{name}" for name in present))
    for name in ("httpGet", "tcpSocket", "grpc"):
        action = actions[name]
        if action is not None:
            yield from _port(getattr(action, "port", None), f"{path}.{name}.port", port_name)
    if probe.http_get is not None and probe.http_get.scheme.upper() not in _SCHEMES:
        yield invalid(probe.http_get.scheme, f"{path}.httpGet.scheme", "must be HTTP or HTTPS")
    yield from _targets(probe, path)
    if probe.exec is not None and not probe.exec.command:
        yield FieldError("missing field(s)", (f"{path}.exec.command",))
    for name, value in (
        ("initialDelaySeconds", probe.initial_delay_seconds),
        ("timeoutSeconds", probe.timeout_seconds),
        ("periodSeconds", probe.period_seconds),
        ("failureThreshold", probe.failure_threshold),
    ):
        if value < 0:
            yield out_of_bounds(value, 0, INT32_MAX, f"{path}.{name}")


def _targets(probe: Probe, path: str) -> Iterator[FieldError]:
    """A probe is sent to the instance only, and consists of one request."""
    for name, action in (("httpGet", probe.http_get), ("tcpSocket", probe.tcp_socket)):
        if action is not None and action.host not in ("", *_OWN_HOSTS):
            yield invalid(
                printable(action.host), f"{path}.{name}.host", "probes are always sent to the instance: omit the field"
            )
    if probe.http_get is None:
        return
    if CONTROL.search(probe.http_get.path) or " " in probe.http_get.path:
        reason = "must not contain spaces and control characters"
        yield invalid(printable(probe.http_get.path), f"{path}.httpGet.path", reason)
    for at, header in enumerate(probe.http_get.http_headers):
        here = f"{path}.httpGet.httpHeaders[{at}]"
        if not _TOKEN.fullmatch(header.name):
            yield invalid(printable(header.name), f"{here}.name", "is not the name of an HTTP header (RFC 9110, 5.1)")
        if CONTROL.search(header.value.replace("\t", " ")):
            yield invalid(printable(header.value), f"{here}.value", "must not contain control characters")


def readiness_problems(probe: Probe | None, path: str, port_name: str) -> Iterator[FieldError]:
    """Problems of a readiness probe. With a period of 0 it runs as often as possible, and has no other times."""
    if probe is None:
        return
    yield from probe_problems(probe, path, port_name)
    if probe.success_threshold < 1:
        yield out_of_bounds(probe.success_threshold, 1, INT32_MAX, f"{path}.successThreshold")
    times = (("failureThreshold", probe.failure_threshold), ("timeoutSeconds", probe.timeout_seconds))
    for name, value in times:
        if probe.period_seconds == 0 and value > 0:
            yield FieldError(f"{name} is disallowed when periodSeconds is zero", (f"{path}.{name}",))
        if probe.period_seconds > 0 and value == 0:
            yield out_of_bounds(value, 1, INT32_MAX, f"{path}.{name}")


def _port(port: int | str | None, path: str, port_name: str) -> Iterator[FieldError]:
    if isinstance(port, str):
        if port != port_name:
            yield invalid(port, path, "Probe port must match container port")
    elif port is not None and not 0 <= port <= _MAX_PORT:
        yield out_of_bounds(port, 0, _MAX_PORT, path)
