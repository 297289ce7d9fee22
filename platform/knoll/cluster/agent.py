"""The agent of one of several machines: connections to the others, and the renewal of the machine's certificate.

`python -m knoll.cluster.agent` runs on each machine of a cluster, and on no other.
"""

import asyncio
import contextlib
import re
import ssl
import sys
from collections.abc import Awaitable, Iterator, Mapping
from datetime import UTC, datetime

import httpx
import structlog

from knoll.cluster import managers
from knoll.cluster.forwarder import Egress, Ingress, Remote
from knoll.cluster.node_folder import NodeFolder, NodeFolderError, accepted_protocols, protocol
from knoll.process import logs
from knoll.process.settings import AgentSettings
from knoll.process.until_stopped import until_stopped
from knoll.values.errors import KnollError
from knoll.values.json import Json

log = structlog.get_logger()

MEMBERS_SECONDS = 5.0
"""Interval at which the agent reads the members from the API. A removed machine is cut off after this time."""
RENEW_SECONDS = 3600.0
SERVICES = frozenset({"redis", "sentinel", "logs", "api", "builder", "registry"})
_TARGET = re.compile(r"([a-z]+)=([^=:/@,]+):(\d{1,5})")
_FORWARD = re.compile(r"([^=:/@,]+):(\d{1,5})=([a-z]+)@([a-z0-9.-]+)/([^=/@,]+):(\d{1,5})")


class AgentError(KnollError):
    """A setting of the agent is invalid, or a port is taken."""


def targets(text: str) -> dict[str, tuple[str, int]]:
    """Parse `agent_services`; returns host and port by ALPN protocol. Raises: AgentError."""
    parsed = {}
    for part in filter(None, (each.strip() for each in text.split(","))):
        match = _TARGET.fullmatch(part)
        if match is None or match[1] not in SERVICES:
            raise AgentError(f"KNOLL_AGENT_SERVICES: {part!r} is not of the form NAME=HOST:PORT")
        for accepted in accepted_protocols(match[1]):
            parsed[accepted] = (match[2], int(match[3]))
    return parsed


def forwards(text: str) -> list[tuple[tuple[str, int], Remote]]:
    """Parse `agent_forwards`; returns where to listen, and the service to forward to. Raises: AgentError."""
    parsed = []
    for part in filter(None, (each.strip() for each in text.split(","))):
        match = _FORWARD.fullmatch(part)
        if match is None or match[3] not in SERVICES:
            raise AgentError(f"KNOLL_AGENT_FORWARDS: {part!r} is not of the form HOST:PORT=NAME@NODE/ADDRESS:PORT")
        host, port, service, node, address, remote_port = match.groups()
        parsed.append(((host, int(port)), Remote(node, address, int(remote_port), protocol(service))))
    return parsed


class Agent:
    """The agent of one machine."""

    def __init__(self, settings: AgentSettings) -> None:
        """Raises: AgentError, NodeFolderError."""
        if settings.node_dir is None:
            raise AgentError("KNOLL_NODE_DIR is not set: only one of several machines has an agent")
        self._settings = settings
        self._folder = NodeFolder(settings.node_dir)
        self.name = settings.node or self._folder.name
        self.members: frozenset[str] = frozenset()
        """Machines that may connect; empty until the API has been read."""
        self.early = self._stored_managers()
        """Managers that may connect to Redis until the API has been read, which needs Redis itself."""
        self._ingress = Ingress(
            self._folder, targets(settings.agent_services), lambda: self.members, lambda: self.early
        )
        self._egresses = [
            # A client of the registry can read all images of the platform: on each machine only its engine may.
            (place, Egress(self._folder, remote, root_only=remote.service == protocol("registry")))
            for place, remote in forwards(settings.agent_forwards)
        ]

    async def run(self) -> None:
        """Run until cancelled. Raises: AgentError: a port is taken."""
        async with contextlib.AsyncExitStack() as stack:
            for place, egress in self._egresses:
                await stack.enter_async_context(await self._listening(egress.start(*place), *place))
            settings = self._settings
            if settings.agent_services:
                place = (settings.agent_host, settings.agent_port)
                await stack.enter_async_context(await self._listening(self._ingress.start(*place), *place))
            log.info("agent started", node=self.name)
            async with asyncio.TaskGroup() as tasks:
                tasks.create_task(self._follow_files())
                if settings.agent_services:
                    tasks.create_task(self._follow_members())
                    tasks.create_task(self._renew())

    @staticmethod
    async def _listening(start: Awaitable[asyncio.Server], host: str, port: int) -> asyncio.Server:
        try:
            return await start
        except OSError as error:
            raise AgentError(f"cannot listen on {host}:{port}: {error.strerror}") from error

    async def _follow_members(self) -> None:
        while True:
            with self._reported("members not read"):
                answer = await self._ask("GET", "/cluster/nodes")
                self.members, self.early = frozenset(str(each["name"]) for each in answer["nodes"]), frozenset()
                self._ingress.drop_strangers()
                if listed := managers.convert(answer.get("managers", [])):
                    await asyncio.to_thread(self._folder.keep_managers, listed)
            await asyncio.sleep(MEMBERS_SECONDS)

    def _stored_managers(self) -> frozenset[str]:
        with self._reported("managers not read"):
            return frozenset(manager.name for manager in self._folder.managers())
        return frozenset()

    async def _renew(self) -> None:
        while True:
            with self._reported("certificate not renewed"):
                if not self._folder.is_valid(datetime.now(UTC)):
                    await self.renew()
            await asyncio.sleep(RENEW_SECONDS)

    async def renew(self) -> None:
        """Get a new certificate and token. Raises: AgentError, NodeFolderError."""
        request = await asyncio.to_thread(self._folder.request, self.name)
        path = f"/cluster/nodes/{self.name}/certificate"
        issued = await self._ask("POST", path, {"request": request.decode()})
        self._folder.keep(issued["authority"].encode(), issued["certificate"].encode(), issued["token"])
        log.info("certificate renewed", node=self.name)

    async def _follow_files(self) -> None:
        """Use a renewed certificate for new connections; another agent of this machine may have renewed it."""
        before = self._folder.stamp()
        while True:
            await asyncio.sleep(MEMBERS_SECONDS)
            if (stamp := self._folder.stamp()) != before:
                with self._reported("certificate not read"):
                    for context in (self._ingress.context, *(egress.context for _, egress in self._egresses)):
                        self._folder.load(context)
                    before = stamp

    async def _ask(self, method: str, path: str, body: Mapping[str, str] | None = None) -> Json:
        """Call this machine's API. Raises: AgentError, NodeFolderError."""
        trusted = await asyncio.to_thread(ssl.create_default_context, cafile=str(self._folder.authority))
        url, headers = self._settings.agent_api_url, {"Authorization": f"Bearer {self._folder.token}"}
        try:
            async with httpx.AsyncClient(base_url=url, verify=trusted, headers=headers, timeout=10.0) as client:
                # The API's certificate has this name on every machine.
                request = client.build_request(method, path, json=body, extensions={"sni_hostname": "localhost"})
                response = await client.send(request)
            if not response.is_success:
                raise AgentError(f"{url}{path} returned {response.status_code} {response.text[:300]}")
            parsed = response.json()
        except (httpx.HTTPError, ValueError) as error:
            raise AgentError(f"{url}{path}: {error or type(error).__name__}") from error
        return dict(parsed)

    @contextlib.contextmanager
    def _reported(self, event: str) -> Iterator[None]:
        try:
            yield
        except (AgentError, NodeFolderError, OSError, LookupError, TypeError, ValueError) as error:
            log.warning(event, error=str(error))


def main() -> None:
    settings = AgentSettings.or_exit()
    logs.set_up(settings.log_level, settings.log_format, "agent")
    try:
        asyncio.run(until_stopped(Agent(settings).run()))
    except (KnollError, OSError) as error:
        sys.exit(f"agent: {error}")


if __name__ == "__main__":
    main()
