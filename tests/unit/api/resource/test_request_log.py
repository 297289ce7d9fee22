"""Which lines of a request log are shown, and how."""

import pytest

from api.resource.request_log import chosen, printed
from knoll.messages.request_log import LogLine
from knoll.values.log_options import LogOptions

LINES = [LogLine(3, "c"), LogLine(1, "a"), LogLine(2, "b")]


@pytest.mark.parametrize(
    ("options", "shown"),
    [
        (LogOptions(), "abc"),
        (LogOptions(tail=2), "bc"),
        (LogOptions(tail=0), ""),
        (LogOptions(tail=9), "abc"),
        (LogOptions(since=2), "bc"),
        (LogOptions(since=2, tail=1), "c"),
    ],
    ids=str,
)
def test_the_lines_of_all_activators_are_put_in_order(options: LogOptions, shown: str) -> None:
    assert "".join(line.text for line in chosen(LINES, options)) == shown


def test_a_line_is_printed_as_kubernetes_does() -> None:
    assert printed(LogLine(1.5, "x"), LogOptions()) == b"x\n"
    assert printed(LogLine(1.5, "x\n"), LogOptions()) == b"x\n"
    assert printed(LogLine(1.5, "x"), LogOptions(timestamps=True)) == b"1970-01-01T00:00:01.500000000Z x\n"
    assert printed(LogLine(2, "x"), LogOptions(timestamps=True)) == b"1970-01-01T00:00:02.000000000Z x\n"
