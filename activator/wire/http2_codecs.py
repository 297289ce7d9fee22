"""Which codec of HTTP/2 is used. Libraries are loaded at their first use."""

import importlib
from collections.abc import Callable

import structlog

from activator.wire.http2_codec import Codec, CodecFactory, CodecOptions, FrameHandler

log = structlog.get_logger()


def h2(handler: FrameHandler, clock: Callable[[], float], options: CodecOptions) -> Codec:
    """Make a codec on the h2 library."""
    from activator.wire.http2_h2 import H2Codec

    return H2Codec(handler, clock, options)


def ngh2(handler: FrameHandler, clock: Callable[[], float], options: CodecOptions) -> Codec:
    """Make a codec on libnghttp2. Raises: ImportError: it is not installed."""
    from activator.wire.http2_ngh2 import Ngh2Codec

    return Ngh2Codec(handler, clock, options)


def named(name: str) -> CodecFactory:
    """Return the codec of a library.

    Args:
        name: ngh2, h2, or auto: ngh2 where it is installed.

    Raises:
        ImportError: the library is not installed.
    """
    if name == "h2":
        return h2
    try:
        importlib.import_module("ngh2")
    except ImportError as error:
        if name != "auto":
            raise
        log.warning("HTTP/2 is slow", library="h2", reason=repr(error))
        return h2
    return ngh2


def default(handler: FrameHandler, clock: Callable[[], float], options: CodecOptions) -> Codec:
    """Make a codec on ngh2 where it is installed, otherwise on h2."""
    return named("auto")(handler, clock, options)
