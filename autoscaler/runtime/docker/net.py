"""The network namespace of a sandbox: its listening sockets, and forwarding to its loopback address.

A program of the sandbox's own image does the work (`pause_image.NET`), run in the sandbox by the engine. It needs
neither the user's image nor the processes and the network of the host, which an autoscaler in its own container cannot
see.
"""

import contextlib

from autoscaler.runtime.docker import inspect, pause_image
from autoscaler.runtime.docker.engine import Engine, EngineError
from autoscaler.runtime.model import Family, Listener
from autoscaler.runtime.sockets import parse
from knoll.values.errors import RuntimeUnavailableError


class Net:
    """The network namespaces of all sandboxes, by the engine's ids; keeps nothing."""

    def __init__(self, engine: Engine) -> None:
        self._engine = engine

    async def listening(self, sandbox: str) -> tuple[Listener, ...]:
        """See `Runtime.listening`; empty for a sandbox of an older image, which lacks the program."""
        with contextlib.suppress(EngineError):
            result = await inspect.run(self._engine, sandbox, [pause_image.NET, "list"])
            if result.exit_code == 0:
                return parse(result.output.decode(errors="replace"))
        return ()

    async def forward(self, sandbox: str, address: str, port: int, family: Family) -> None:
        """See `Runtime.forward`; returns once the forwarder is started. Args: address: of the sandbox, IPv4."""
        command = [pause_image.NET, "forward", address, str(port), family]
        try:
            created = await self._engine.post(f"/containers/{sandbox}/exec", {"Cmd": command})
            await self._engine.post(f"/exec/{created['Id']}/start", {"Detach": True, "Tty": False})
        except EngineError as error:
            raise RuntimeUnavailableError(f"the engine cannot forward ports in sandbox {sandbox}: {error}") from error

    async def stop(self, sandbox: str) -> None:
        """See `Runtime.unforward`."""
        with contextlib.suppress(EngineError):
            # The engine lists commands for some minutes after their end; without one there was no forwarder.
            if (await self._engine.get(f"/containers/{sandbox}/json")).get("ExecIDs"):
                await inspect.run(self._engine, sandbox, [pause_image.NET, "stop"])
