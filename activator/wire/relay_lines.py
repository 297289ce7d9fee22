"""The lines that activators of different nodes send in addition to HTTP/1.1. Pure.

A request to an instance of another node is preceded by a line that names the instance, as in the PROXY protocol. It is
a line and not a header field, so that neither a client nor an instance can send one: clients do not reach the relay,
and everything that an instance sends comes after the status line of its response. Responses are HTTP/1.1. The owner,
which is the node that runs the instance, uses lines for requests that it does not forward and for slots.

    RELAY/1 default/hello-00001 hello-00001-x7k2p now        (a complete request follows)
    RELAY/1 default/hello-00001 hello-00001-x7k2p held       (its body follows `granted`)
    RELAY/1 default/hello-00001 hello-00001-x7k2p declined   (no request; the answer to `free`)
    RELAY/1 ready | busy | gone | refused REASON | granted | closing | load 17
    RELAY/1 free default/hello-00001 hello-00001-x7k2p
"""

from enum import Enum
from typing import NamedTuple

MARK = b"RELAY/1 "
MAX_LINE = 1024
"""Bytes of a line. Names have up to 63 characters; a longer reason is cut off."""
_MAX_REASON = 400


class Verb(Enum):
    """First word of a line that the owner of an instance sends."""

    READY = b"ready"
    """Sent first: the certificate was accepted. With TLS 1.3 a client cannot tell from the handshake alone."""
    BUSY = b"busy"
    """No slot is free; the request was not forwarded."""
    GONE = b"gone"
    """The owner does not serve this instance to this node; the request was not forwarded."""
    REFUSED = b"refused"
    """The instance refused the connection; the request was not forwarded."""
    GRANTED = b"granted"
    """The instance is connected: the body may follow."""
    CLOSING = b"closing"
    """The connection accepts no more requests; one that was sent before this line arrived was not read."""
    LOAD = b"load"
    """How many requests the instance of this request has."""
    FREE = b"free"
    """A slot of an instance that was busy is free."""


class Mode(Enum):
    """What follows the line that names an instance."""

    NOW = b"now"
    """A complete request."""
    HELD = b"held"
    """The head of a request; its body is sent after `granted`, because it could not be sent again."""
    DECLINED = b"declined"
    """Nothing: the sender has no request for the slot that is free."""


class Target(NamedTuple):
    """The instance that a request is for."""

    revision: str
    """`namespace/name`."""
    instance: str
    mode: Mode


_VERBS = {verb.value: verb for verb in Verb}
_MODES = {mode.value: mode for mode in Mode}


def request_line(revision: str, instance: str, mode: Mode) -> bytes:
    """Return the line before a request."""
    return MARK + f"{revision} {instance} ".encode() + mode.value + b"\r\n"


def parse_request(line: bytes) -> Target | None:
    """Parse the line before a request, without its CRLF; None if it is not one."""
    parts = line[len(MARK) :].split(b" ")
    mode = _MODES.get(parts[-1])
    if not line.startswith(MARK) or len(parts) != 3 or mode is None:
        return None
    try:
        revision, instance = parts[0].decode("ascii"), parts[1].decode("ascii")
    except UnicodeDecodeError:
        return None
    return Target(revision, instance, mode) if revision and instance else None


def statement(verb: Verb, text: str = "") -> bytes:
    """Return a line of the owner.

    Args: text: the reason for `refused`; the number of requests for `load`; revision and instance for `free`.
    """
    more = "".join(letter if letter.isprintable() else " " for letter in text)[:_MAX_REASON]
    return MARK + verb.value + (b" " + more.encode("ascii", "replace") if more else b"") + b"\r\n"


def parse_statement(line: bytes) -> tuple[Verb, str] | None:
    """Parse a line of the owner, without its CRLF; None if it is not one."""
    word, _, text = line[len(MARK) :].partition(b" ")
    verb = _VERBS.get(word)
    if verb is None or not line.startswith(MARK):
        return None
    return verb, text.decode("ascii", "replace")
