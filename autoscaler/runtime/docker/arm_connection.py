"""The connection to the first process of an armed container, through which it is released; see programs/arm.c."""

import asyncio
import contextlib
from dataclasses import dataclass
from typing import Self, cast

from autoscaler.runtime.docker import labels
from autoscaler.runtime.docker.listing import ListedContainer
from autoscaler.runtime.model import NotArmedError

WAITING, GOING, NOT_EXECUTABLE = b"w", b"g", b"n"
_RELEASE = b"r"
ANSWER_SECONDS = 1.0
"""A response takes some ten microseconds; a lost packet is sent again by the kernel after 0.2 s."""

LISTEN_SECONDS = 10.0
"""How long a container that was started may take to listen; a few milliseconds on an engine where it works."""
RETRY_SECONDS = 0.01


class ArmConnection(asyncio.Protocol):
    """One container. It holds nothing but a socket, and nothing passes over it before the release."""

    def __init__(self) -> None:
        self._answer: asyncio.Future[bytes] = asyncio.get_running_loop().create_future()
        self._transport: asyncio.Transport | None = None

    @classmethod
    async def open(cls, address: str, port: int, token: str, seconds: float = ANSWER_SECONDS) -> Self:
        """Connect to a container that waits for its release.

        Raises:
            ConnectionRefusedError: nothing listens there: it was released, or does not listen yet.
            NotArmedError: it does not respond in time, or not as expected.
        """
        loop = asyncio.get_running_loop()
        try:
            async with asyncio.timeout(seconds):
                _, connection = await loop.create_connection(cls, address, port)
        except ConnectionRefusedError:
            raise
        except (OSError, TimeoutError) as error:
            raise NotArmedError(f"{address}:{port} cannot be reached: {error or 'it does not respond'}") from error
        try:
            if await connection._ask(token.encode(), seconds) == WAITING:
                return connection
        except BaseException:
            connection.close()
            raise
        connection.close()
        raise NotArmedError(f"{address}:{port} does not respond like a prepared container")

    @property
    def is_open(self) -> bool:
        return self._transport is not None and not self._transport.is_closing()

    async def release(self, seconds: float = ANSWER_SECONDS) -> None:
        """Let it execute its program.

        Raises:
            NotArmedError: the program cannot be executed, or the container does not respond.
        """
        answer = await self._ask(_RELEASE, seconds)
        self.close()
        if answer != GOING:
            raise NotArmedError("its program cannot be executed")

    def close(self) -> None:
        if self._transport is not None:
            self._transport.abort()
        if not self._answer.done():
            self._answer.cancel()

    async def _ask(self, question: bytes, seconds: float) -> bytes:
        if self._transport is None or self._transport.is_closing():
            raise NotArmedError("the connection was closed")
        self._answer = asyncio.get_running_loop().create_future()
        self._transport.write(question)
        try:
            async with asyncio.timeout(seconds):
                return await self._answer
        except TimeoutError as error:
            raise NotArmedError("it does not respond") from error

    # asyncio.Protocol

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.Transport, transport)  # uvloop's is not a subclass

    def data_received(self, data: bytes) -> None:
        if not self._answer.done():
            self._answer.set_result(data[:1])

    def connection_lost(self, _: Exception | None) -> None:
        if not self._answer.done():
            with contextlib.suppress(asyncio.InvalidStateError):
                self._answer.set_exception(NotArmedError("the connection was closed"))
                self._answer.exception()  # retrieved: it may be that no call waits for it


@dataclass(frozen=True, slots=True)
class ArmedContainer:
    """Where one container waits for its release."""

    address: str
    port: int
    token: str

    async def connect(self) -> ArmConnection:
        """See `ArmConnection.open`."""
        return await ArmConnection.open(self.address, self.port, self.token)

    async def listening(self) -> ArmConnection:
        """Connect to a container that was just started, as soon as it listens. Raises: NotArmedError."""
        try:
            async with asyncio.timeout(LISTEN_SECONDS):
                while True:
                    try:
                        return await self.connect()
                    except ConnectionRefusedError:
                        await asyncio.sleep(RETRY_SECONDS)
        except TimeoutError as error:
            raise NotArmedError(f"nothing listens at {self.address}:{self.port}") from error


def armed_container(container: ListedContainer) -> ArmedContainer:
    """Return where a container waits for its release, which was armed and is running."""
    own = container.labels
    return ArmedContainer(own[labels.ADDRESS], int(own[labels.ARM_PORT]), own[labels.ARM_TOKEN])


async def release_again(container: ListedContainer) -> None:
    """Release a container that was armed, released and stopped, and has been started again.

    Raises:
        NotArmedError: it does not wait, or its program cannot be executed any more.
    """
    await (await armed_container(container).listening()).release()
