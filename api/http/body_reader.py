"""Reads request bodies up to a limit, and parses large ones off the event loop."""

import asyncio

from starlette.requests import ClientDisconnect, Request

from api.wire import bodies
from knoll.values.errors import BadRequestError, UnsupportedMediaTypeError


async def raw_body(request: Request) -> bytes:
    """Return the whole body.

    Raises:
        TooLargeError: over `bodies.MAX_BYTES`; the rest is not read. UnsupportedMediaTypeError: it is compressed.
    """
    encoding = request.headers.get("content-encoding", "identity")
    if encoding not in ("", "identity"):
        raise UnsupportedMediaTypeError(
            f"Content-Encoding {encoding[:40]!r} is not supported: do not compress the body"
        )
    declared = request.headers.get("content-length", "")
    if declared.isdigit() and int(declared) > bodies.MAX_BYTES:
        raise bodies.too_large(bodies.MAX_BYTES, int(declared))
    chunks: list[bytes] = []
    size = 0
    try:
        async for chunk in request.stream():
            size += len(chunk)
            if size > bodies.MAX_BYTES:
                raise bodies.too_large(bodies.MAX_BYTES)
            chunks.append(chunk)
    except ClientDisconnect:
        raise BadRequestError("the client disconnected before its request was complete") from None
    return b"".join(chunks)


async def parsed_body(request: Request, *, duplicates: bool) -> bodies.Parsed:
    """Return the parsed body.

    Args:
        duplicates: whether to find repeated keys in JSON, which costs a second parse.
    """
    raw = await raw_body(request)
    content_type = request.headers.get("content-type", "")
    if len(raw) > bodies.LARGE:
        return await asyncio.to_thread(_parse, raw, content_type, duplicates)
    return _parse(raw, content_type, duplicates)


def _parse(raw: bytes, content_type: str, duplicates: bool) -> bodies.Parsed:
    parsed = bodies.parse(raw, content_type)
    if duplicates and bodies.media_type(content_type) == bodies.JSON:
        parsed.duplicates = bodies.json_duplicates(raw)
    return parsed
