"""Errors of a node's services. Pure."""

from knoll.values.errors import KnollError


class IsolationError(KnollError):
    """An instance must not start because the network policy that isolates it is not in force."""

    code, reason = 503, "NetworkNotIsolated"
