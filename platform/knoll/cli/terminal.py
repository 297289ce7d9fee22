"""Prints text written by tenants: logs, build output, messages.

Control characters are escaped (`\\x1b`) on a terminal, because it would act on them (OSC 52 writes the clipboard, OSC 0
the title, others send input as if the user typed). Colours are kept, as with `less -R`, and reset at the end of the
line. Text is passed through unchanged if the output is not a terminal.
"""

import re
import sys
from typing import TYPE_CHECKING, TextIO

import click

from knoll.values.names import printable

if TYPE_CHECKING:
    from rich.console import Console  # slow to import, and most commands do not use it

_COLOURS = re.compile(r"(\x1b\[[0-9;:]*m)")
"""SGR: colours and weights (ECMA-48, 8.3.117)."""
_RESET = "\x1b[0m"


def clean(text: str) -> str:
    """Escape control characters for a terminal, except line breaks, tabs and colours."""
    return "\n".join(_clean_line(line) for line in text.split("\n"))


def _clean_line(line: str) -> str:
    parts = _COLOURS.split(line)
    cleaned = "".join(part if at % 2 else _escaped(part) for at, part in enumerate(parts))
    return cleaned + _RESET if len(parts) > 1 else cleaned


def _escaped(part: str) -> str:
    return "\t".join(printable(piece) for piece in part.split("\t"))


def echo(text: str, *, err: bool = False, nl: bool = True) -> None:
    """Print like `click.echo`, with control characters escaped on a terminal."""
    click.echo(clean(text) if _is_terminal(sys.stderr if err else sys.stdout) else text, err=err, nl=nl)


def _is_terminal(stream: TextIO) -> bool:
    return stream.isatty()


def write(console: "Console", text: str, *, style: str = "") -> None:
    """Print a line on a console without markup, with control characters escaped on a terminal."""
    text = clean(text) if console.is_terminal else text
    console.print(text, markup=False, highlight=False, style=style or None, soft_wrap=True)
