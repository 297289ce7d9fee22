"""Header fields of every response."""

from starlette.datastructures import MutableHeaders
from starlette.types import ASGIApp, Message, Receive, Scope, Send

ALWAYS = {"Cache-Control": "no-cache, private", "X-Content-Type-Options": "nosniff"}
"""As in kube-apiserver."""


class DefaultHeaders:
    """ASGI middleware that forbids caching and content sniffing of responses."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        async def with_fields(message: Message) -> None:
            if message["type"] == "http.response.start":
                fields = MutableHeaders(scope=message)
                for name, value in ALWAYS.items():
                    fields.setdefault(name, value)
            await send(message)

        await self._app(scope, receive, with_fields)
