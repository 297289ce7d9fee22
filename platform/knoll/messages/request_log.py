"""How the API reads the request log of one instance: it asks all activators, which keep the last lines of each instance
in memory, over channels that keep nothing (`keys.REQUEST_LOG_QUESTIONS`, `keys.request_log_answers`). Pure.

On Knative, the queue-proxy of a Pod writes these lines.
"""

import msgspec

FOLLOW_SECONDS = 15.0
"""An activator sends new lines for so long after it was asked; a reader that follows asks again before."""


class Question(msgspec.Struct, frozen=True):
    """Asks for the last lines of an instance; asked again with the same id, for those that follow."""

    id: str
    """Names the channel of the answers."""
    instance: str
    """`namespace/name` of the instance, which is also the Pod's."""
    follow: bool = False


class LogLine(msgspec.Struct, frozen=True, array_like=True):
    """One line."""

    at: float
    """Epoch seconds at which the request ended."""
    text: str
    """Without a newline at its end; a template may have some within."""


class Answer(msgspec.Struct, frozen=True):
    """Lines of one activator, in the order of time."""

    lines: tuple[LogLine, ...]
    first: bool
    """Whether these are the lines that were there when it was asked."""
