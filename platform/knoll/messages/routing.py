"""The routing table: the revisions and traffic shares of each host. Pure.

The API's Route reconciler writes one `RouteEntry` for each Route into the table `ROUTING`; activators follow it.
"""

from collections.abc import Sequence

import msgspec

from knoll.messages.hosts import Claim

ROUTING = "routing"
"""Name of the table. Field: `namespace/name` of the Route."""


class Share(msgspec.Struct, frozen=True):
    """A revision's part of a host's requests."""

    revision: str
    """`namespace/name`."""
    percent: int
    """0 to 100; the shares of a host sum to 100."""
    tag: str = ""


class RequestPolicy(msgspec.Struct, frozen=True, omit_defaults=True):
    """What an activator needs to know about a revision to handle its requests."""

    concurrency: int = 0
    """Concurrent requests per instance; 0 is no limit."""
    timeout: float = 300.0
    """Seconds for a whole request; 0 is off."""
    response_start_timeout: float = 0.0
    """Seconds until the first byte of the response; 0 is off."""
    idle_timeout: float = 0.0
    """Seconds without a byte from the instance; 0 is off."""
    h2c: bool = False
    """Whether to use HTTP/2 with prior knowledge to the instance."""


class RouteEntry(msgspec.Struct, frozen=True):
    """The entry of one Route in the routing table."""

    hosts: dict[str, tuple[Share, ...]]
    """Host, lower case, without port, to its shares; one for the Route itself and one for each tag."""
    revisions: dict[str, RequestPolicy]
    """`namespace/name` of every revision named in `hosts`."""
    local_hosts: dict[str, tuple[Share, ...]] = {}
    """Cluster-local hosts (`name.ns.svc.cluster.local` and short forms), served at the internal gateway only."""
    sticky: bool = False
    """Whether a client stays with its first revision (annotation `knoll.dev/session-affinity`)."""
    redirect: int = 0
    """HTTPS port to which HTTP requests at `hosts` are redirected; 0 is none."""
    mapping: bool = False
    """Whether it is the entry of a DomainMapping, which never owns a host that a Route claims."""
    since: dict[str, float] = {}
    """Host of `hosts` to the epoch seconds at which it was claimed; decides between Routes with the same host."""
    missing: tuple[str, ...] = ()
    """Those of `revisions` that were deleted since: their requests get 404 immediately."""

    def claim(self, path: str, host: str) -> Claim:
        """The entry's claim of a host of `hosts`. Args: path: the entry's field of the table."""
        return Claim(self.mapping, self.since.get(host, 0.0), path)


def pick(shares: Sequence[Share], point: int) -> Share:
    """Choose by weight.

    Args:
        shares: of one host; percents sum to 100.
        point: 0 to 99, uniformly distributed.

    Returns:
        The share whose range contains `point`.

    Raises:
        ValueError: the percents sum to at most `point`.
    """
    for share in shares:
        point -= share.percent
        if point < 0:
            return share
    raise ValueError("the shares of a host must sum to 100 percent")
