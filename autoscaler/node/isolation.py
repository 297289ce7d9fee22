"""Ensures that the firewall enforces the network policy before user code runs.

An instance of a namespace with the default policy costs nothing: the rules match instances by their bridge. For a
namespace with its own egress policy, the instance's address is sent to the firewall first and the start waits for it.
"""

import asyncio
import contextlib
from collections.abc import Callable
from pathlib import Path
from typing import Protocol

import aiohttp
import msgspec
import structlog

from autoscaler.node.egress import egress_of, policy_of, restricts
from autoscaler.node.errors import IsolationError
from autoscaler.runtime.model import Network
from knoll.concurrency.backoff import Backoff
from knoll.config.security import SecurityConfig
from knoll.firewall.policy import PATH, AppliedPolicy, FirewallPolicy, NamespaceEgress
from knoll.store.informer import Informer, ObjectChange

log = structlog.get_logger()

REPEAT_SECONDS = 10.0
"""Interval at which the policy is sent again: a firewall that was restarted waits for it."""
CALL_SECONDS = 30.0


class Firewall(Protocol):
    """Enforces a policy."""

    async def put(self, policy: FirewallPolicy) -> AppliedPolicy:
        """Send a policy; returns once the kernel enforces it. Raises: IsolationError."""
        ...


class FirewallSocket:
    """The firewall process, over its Unix socket."""

    def __init__(self, path: Path) -> None:
        self._path = path

    async def put(self, policy: FirewallPolicy) -> AppliedPolicy:
        timeout = aiohttp.ClientTimeout(total=CALL_SECONDS)
        try:
            async with (
                aiohttp.ClientSession(connector=aiohttp.UnixConnector(str(self._path)), timeout=timeout) as session,
                session.put(f"http://firewall{PATH}", data=msgspec.json.encode(policy)) as answer,
            ):
                body = await answer.read()
        except (aiohttp.ClientError, OSError, TimeoutError) as error:
            raise IsolationError(
                f"the firewall at {self._path} does not respond ({error or type(error).__name__}): is it running?"
            ) from error
        if answer.status != 200:
            raise IsolationError(f"the firewall cannot isolate instances: {body.decode(errors='replace')[:1000]}")
        return msgspec.json.decode(body, type=AppliedPolicy)


class Isolation:
    """The policy of one platform, while this process leads."""

    def __init__(
        self,
        firewall: Firewall | None,
        namespaces: Informer,
        config: Callable[[], SecurityConfig],
        network: Callable[[], Network],
    ) -> None:
        """
        Args:
            firewall: None when this platform has none.
            namespaces: informer that the caller runs.
            config: returns the newest configuration.
            network: returns the network of the instances, as the engine last described it.
        """
        self._firewall, self._config, self._network = firewall, config, network
        self._egress: dict[str, NamespaceEgress] = {}
        """FirewallPolicy of each namespace that has its own."""
        self._annotations: dict[str, dict[str, str]] = {}
        """Of each namespace that sets an egress policy."""
        self._instances: dict[str, tuple[str, str]] = {}
        """Name to namespace and address."""
        self._applied: FirewallPolicy | None = None
        self._turn, self._changed = asyncio.Lock(), asyncio.Event()
        self._requests = self._served = 0
        self.problem = "" if firewall is None else "the firewall has not received its policy yet"
        """Why the policy is not enforced; empty when it is, or when there is no firewall."""
        namespaces.subscribe(self._namespace_changed)

    def add(self, instance: str, namespace: str, address: str) -> None:
        """Add an instance that runs already."""
        self._instances[instance] = (namespace, address)

    def remove(self, instance: str) -> None:
        """Remove an instance that is gone."""
        self._instances.pop(instance, None)

    def configuration_changed(self) -> None:
        """Apply a changed configuration."""
        self._read_namespaces()
        self._changed.set()

    async def admit(self, instance: str, namespace: str, address: str) -> None:
        """Apply the policy to a new instance; returns when user code may run there.

        Raises: IsolationError: it must not.
        """
        config = self._config()
        self._instances[instance] = (namespace, address)
        if config.network_isolation == "disabled":
            return
        egress = self._egress.get(namespace)
        if self._firewall is None:
            if config.network_isolation == "required" or restricts(config, egress):
                raise IsolationError(
                    "this platform has no firewall, so it can neither isolate instances nor deny them egress: "
                    "start it with Compose, or `knoll up` as root with nftables installed"
                )
            return
        if not self._is_applied(egress, address):
            await self._put()

    async def run(self) -> None:
        """Keep the firewall up to date, forever."""
        if self._firewall is None:
            return
        backoff = Backoff()
        while True:
            self._changed.clear()
            seconds = REPEAT_SECONDS
            try:
                await self._put()
                backoff.reset()
            except IsolationError as error:
                seconds = backoff.next_pause()
                log.warning("network policy not applied, retrying", error=str(error))
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(seconds):
                    await self._changed.wait()

    def _is_applied(self, egress: NamespaceEgress | None, address: str) -> bool:
        """Return whether the kernel enforces this policy for an address."""
        applied = self._applied
        if applied is None or (applied.bridge, applied.subnets) != (self._network().bridge, self._network().subnets):
            return False
        namespaces = applied.namespaces.values()
        current = next((namespace for namespace in namespaces if address in namespace.addresses), None)
        if current is None or egress is None:
            return current is egress
        return (current.egress, current.allow) == (egress.egress, egress.allow)

    async def _put(self) -> None:
        """Send the policy; requests that arrive during a call share the next one."""
        assert self._firewall is not None
        self._requests += 1
        request = self._requests
        async with self._turn:
            if self._served >= request:
                return
            latest, policy = self._requests, self._policy()
            try:
                applied = await self._firewall.put(policy)
            except IsolationError as error:
                self.problem = str(error)
                raise
            self._applied, self._served = policy, latest
            if self.problem:
                log.info("network policy applied", isolated=policy.isolated)
            self.problem = ""
            if applied.unresolved:
                log.warning("egress hosts not resolved", hosts=applied.unresolved)

    def _policy(self) -> FirewallPolicy:
        policy = policy_of(self._config(), self._egress, self._instances, self._network())
        if policy.isolated and not (policy.bridge and policy.subnets):
            raise IsolationError(
                "the network of instances is not an IPv4 bridge of the engine, so it cannot be filtered: "
                "remove it with `docker network rm`, and the platform creates a new one"
            )
        return policy

    def _namespace_changed(self, notice: ObjectChange) -> None:
        name = notice.key.rpartition("/")[2]
        annotations = (notice.new or {}).get("metadata", {}).get("annotations") or {}
        before = self._egress.get(name)
        self._annotations[name] = annotations
        if egress_of(annotations, self._config()) is None:
            del self._annotations[name]
        self._read_namespaces()
        if self._egress.get(name) != before:
            self._changed.set()

    def _read_namespaces(self) -> None:
        config = self._config()
        read = {name: egress_of(annotations, config) for name, annotations in self._annotations.items()}
        self._egress = {name: egress for name, egress in read.items() if egress is not None}
