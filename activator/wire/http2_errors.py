"""Error codes and settings of HTTP/2 (RFC 9113 §6.5.2, §7), and its two kinds of errors. Pure."""

from enum import IntEnum


class ErrorCode(IntEnum):
    """Codes of RST_STREAM and GOAWAY."""

    NO_ERROR = 0x0
    PROTOCOL_ERROR = 0x1
    INTERNAL_ERROR = 0x2
    FLOW_CONTROL_ERROR = 0x3
    SETTINGS_TIMEOUT = 0x4
    STREAM_CLOSED = 0x5
    FRAME_SIZE_ERROR = 0x6
    REFUSED_STREAM = 0x7
    CANCEL = 0x8
    COMPRESSION_ERROR = 0x9
    CONNECT_ERROR = 0xA
    ENHANCE_YOUR_CALM = 0xB
    INADEQUATE_SECURITY = 0xC
    HTTP_1_1_REQUIRED = 0xD


class Setting(IntEnum):
    """Identifiers of settings."""

    HEADER_TABLE_SIZE = 0x1
    ENABLE_PUSH = 0x2
    MAX_CONCURRENT_STREAMS = 0x3
    INITIAL_WINDOW_SIZE = 0x4
    MAX_FRAME_SIZE = 0x5
    MAX_HEADER_LIST_SIZE = 0x6


class HTTP2ConnectionError(Exception):
    """A connection error (RFC 9113 §5.4.1)."""

    def __init__(self, code: int, text: str) -> None:
        self.code = code
        super().__init__(text)


class HTTP2StreamError(Exception):
    """A stream error (RFC 9113 §5.4.2)."""

    def __init__(self, stream: int, code: int, text: str) -> None:
        self.stream = stream
        self.code = code
        super().__init__(text)
