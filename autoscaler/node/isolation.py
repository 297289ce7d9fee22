"""Sees to it that the firewall holds the policy before user code runs.

An instance of a namespace that is like all others costs nothing: the rules know instances by their bridge. For one of a
namespace with an egress of its own its address is sent to the firewall first, and the start waits for the answer.
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
from autoscaler.runtime.protocol import Network
from knoll.config.security import SecurityConfig
from knoll.firewall.policy import PATH, AppliedPolicy, FirewallPolicy, NamespaceEgress
from knoll.store.informer import Informer, ObjectChange
from knoll.values.errors import KnollError

log = structlog.get_logger()

REPEAT_SECONDS = 10.0
"""The policy is put again so often: a firewall that was started anew waits for it."""
RETRY_SECONDS = 1.0
CALL_SECONDS = 30.0


class IsolationError(KnollError):
    """An instance must not start, because what keeps it from others is not in force."""

    code, reason = 503, "NetworkNotIsolated"


class Firewall(Protocol):
    """What puts a policy into force."""

    async def put(self, policy: FirewallPolicy) -> AppliedPolicy:
        """Returns once the kernel has it. Raises: IsolationError."""
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
                f"the firewall at {self._path} does not answer ({error or type(error).__name__}): is it running?"
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
            namespaces: run by the caller.
            config: the newest.
            network: of the instances, as the engine described it last.
        """
        self._firewall, self._config, self._network = firewall, config, network
        self._special: dict[str, NamespaceEgress] = {}
        self._annotations: dict[str, dict[str, str]] = {}
        """Of namespaces that have some of ours."""
        self._instances: dict[str, tuple[str, str]] = {}
        """Name to namespace and address."""
        self._applied: FirewallPolicy | None = None
        self._turn, self._changed = asyncio.Lock(), asyncio.Event()
        self._asked = self._answered = 0
        self.problem = "" if firewall is None else "the firewall has not received its policy yet"
        """Why the policy is not in force; empty when it is, or when there is nothing to enforce it."""
        namespaces.subscribe(self._namespace_changed)

    def know(self, instance: str, namespace: str, address: str) -> None:
        """An instance runs already."""
        self._instances[instance] = (namespace, address)

    def forget(self, instance: str) -> None:
        """An instance is gone."""
        self._instances.pop(instance, None)

    def configured(self) -> None:
        """The configuration changed."""
        self._read_namespaces()
        self._changed.set()

    async def admit(self, instance: str, namespace: str, address: str) -> None:
        """An instance has an address; returns when user code may run there.

        Raises: IsolationError: it must not.
        """
        config = self._config()
        self._instances[instance] = (namespace, address)
        if config.network_isolation == "disabled":
            return
        egress = self._special.get(namespace)
        if self._firewall is None:
            if config.network_isolation == "required" or restricts(config, egress):
                raise IsolationError(
                    "this platform has no firewall, so that it can neither isolate instances nor deny them egress: "
                    "start it with Compose, or `knoll up` as root with nftables installed"
                )
            return
        if not self._holds(egress, address):
            await self._put()

    async def run(self) -> None:
        """Keep the firewall told, for ever."""
        if self._firewall is None:
            return
        while True:
            self._changed.clear()
            seconds = REPEAT_SECONDS
            try:
                await self._put()
            except IsolationError as error:
                seconds = RETRY_SECONDS
                log.warning("instances are not isolated as configured, trying again", error=str(error))
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(seconds):
                    await self._changed.wait()

    def _holds(self, egress: NamespaceEgress | None, address: str) -> bool:
        """Whether the kernel has for this address what it is to have."""
        applied = self._applied
        if applied is None or (applied.bridge, applied.subnets) != (self._network().bridge, self._network().subnets):
            return False
        held = next((each for each in applied.namespaces.values() if address in each.addresses), None)
        if held is None or egress is None:
            return held is egress
        return (held.egress, held.allow) == (egress.egress, egress.allow)

    async def _put(self) -> None:
        """Tell the firewall; several that ask meanwhile share the next call."""
        assert self._firewall is not None
        self._asked += 1
        ticket = self._asked
        async with self._turn:
            if self._answered >= ticket:
                return
            latest, policy = self._asked, self._policy()
            try:
                applied = await self._firewall.put(policy)
            except IsolationError as error:
                self.problem = str(error)
                raise
            self._applied, self._answered = policy, latest
            if self.problem:
                log.info("network policy in force", isolated=policy.isolated)
            self.problem = ""
            if applied.unresolved:
                log.warning("hosts of an egress list cannot be looked up", hosts=applied.unresolved)

    def _policy(self) -> FirewallPolicy:
        policy = policy_of(self._config(), self._special, self._instances, self._network())
        if policy.isolated and not (policy.bridge and policy.subnets):
            raise IsolationError(
                "the network of instances is no IPv4 bridge of the engine, so that it cannot be filtered: "
                "remove it with `docker network rm`, and the platform makes a new one"
            )
        return policy

    def _namespace_changed(self, notice: ObjectChange) -> None:
        name = notice.key.rpartition("/")[2]
        annotations = (notice.new or {}).get("metadata", {}).get("annotations") or {}
        before = self._special.get(name)
        self._annotations[name] = annotations
        if egress_of(annotations, self._config()) is None:
            del self._annotations[name]
        self._read_namespaces()
        if self._special.get(name) != before:
            self._changed.set()

    def _read_namespaces(self) -> None:
        config = self._config()
        read = {name: egress_of(annotations, config) for name, annotations in self._annotations.items()}
        self._special = {name: egress for name, egress in read.items() if egress is not None}
