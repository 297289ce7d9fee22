"""The network namespace of a sandbox: what listens in it, and forwarding to its loopback address.

A program of the sandbox's own image does the work (`pause_image.NET`), run in the sandbox by the engine. So it needs
nothing of the user's image, and neither the host's processes nor its network, which an autoscaler in a container of its
own does not see.
"""

import contextlib

from autoscaler.runtime.docker import inspect, pause_image
from autoscaler.runtime.docker.engine import Engine, EngineError
from autoscaler.runtime.protocol import Family, Listener
from autoscaler.runtime.sockets import parse
from knoll.values.errors import RuntimeUnavailableError


class Net:
    """Of all sandboxes; keeps nothing. Sandboxes are named by the engine's id."""

    def __init__(self, engine: Engine) -> None:
        self._engine = engine

    async def listening(self, sandbox: str) -> tuple[Listener, ...]:
        """See `Runtime.listening`; empty for a sandbox of an earlier image, which has no such program."""
        with contextlib.suppress(EngineError):
            result = await inspect.run(self._engine, sandbox, [pause_image.NET, "list"])
            if result.exit_code == 0:
                return parse(result.output.decode(errors="replace"))
        return ()

    async def forward(self, sandbox: str, address: str, port: int, family: Family) -> None:
        """See `Runtime.forward`; returns when it was started. Args: address: the sandbox's, IPv4."""
        command = [pause_image.NET, "forward", address, str(port), family]
        try:
            made = await self._engine.post(f"/containers/{sandbox}/exec", {"Cmd": command})
            await self._engine.post(f"/exec/{made['Id']}/start", {"Detach": True, "Tty": False})
        except EngineError as error:
            raise RuntimeUnavailableError(f"the engine cannot forward in sandbox {sandbox}: {error}") from error

    async def stop(self, sandbox: str) -> None:
        """See `Runtime.unforward`."""
        with contextlib.suppress(EngineError):
            # The engine remembers commands for some minutes after their end; without one there was no forwarding.
            if (await self._engine.get(f"/containers/{sandbox}/json")).get("ExecIDs"):
                await inspect.run(self._engine, sandbox, [pause_image.NET, "stop"])
