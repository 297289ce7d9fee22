"""Which codec of HTTP/2 is used. Libraries are loaded at their first use."""

from collections.abc import Callable

from activator.wire.http2_codec import Codec, CodecOptions, FrameHandler


def h2(handler: FrameHandler, clock: Callable[[], float], options: CodecOptions) -> Codec:
    """Make a codec on the h2 library."""
    from activator.wire.http2_h2 import H2Codec

    return H2Codec(handler, clock, options)


def default(handler: FrameHandler, clock: Callable[[], float], options: CodecOptions) -> Codec:
    """Make the codec of choice."""
    return h2(handler, clock, options)
