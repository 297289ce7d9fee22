"""How the API reads the request log of one instance: it queries all activators, which keep the last lines of each
instance in memory, over Redis channels (`keys.REQUEST_LOG_QUESTIONS`, `keys.request_log_answers`). Pure.

On Knative, the queue-proxy of a Pod writes these lines.
"""

import msgspec

FOLLOW_SECONDS = 15.0
"""Time for which an activator sends new lines after a query; a reader that follows the log repeats it before."""


class Question(msgspec.Struct, frozen=True):
    """Query for the last lines of an instance; repeated with the same id to follow the log."""

    id: str
    """Identifies the channel of the responses."""
    instance: str
    """`namespace/name` of the instance and its Pod."""
    follow: bool = False


class LogLine(msgspec.Struct, frozen=True, array_like=True):
    """One line."""

    at: float
    """Epoch seconds at which the request ended."""
    text: str
    """Without a trailing newline; a template can contain newlines."""


class Answer(msgspec.Struct, frozen=True):
    """Lines from one activator, in chronological order."""

    lines: tuple[LogLine, ...]
    first: bool
    """Whether these are the lines that existed at the time of the query."""
