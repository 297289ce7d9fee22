"""Printing text that tenants wrote: logs, build output, messages.

On a terminal it can do nothing but show: control characters are written out (`\\x1b`), because a terminal acts on them
(OSC 52 writes the clipboard, OSC 0 the title, others answer as if the user typed). Colours stay, as with `less -R`, and
end with their line. Where the output is no terminal, text is passed on as it is.
"""

import re
import sys
from typing import TYPE_CHECKING, TextIO

import click

from knoll.values.names import printable

if TYPE_CHECKING:
    from rich.console import Console  # takes long to load, and most commands print nothing with it

_COLOURS = re.compile(r"(\x1b\[[0-9;:]*m)")
"""SGR: colours and weights (ECMA-48, 8.3.117)."""
_RESET = "\x1b[0m"


def clean(text: str) -> str:
    """Text as a terminal may get it: of control characters only line breaks, tabs and colours are left."""
    return "\n".join(_clean_line(line) for line in text.split("\n"))


def _clean_line(line: str) -> str:
    parts = _COLOURS.split(line)
    found = "".join(part if at % 2 else _spelled(part) for at, part in enumerate(parts))
    return found + _RESET if len(parts) > 1 else found


def _spelled(part: str) -> str:
    return "\t".join(printable(piece) for piece in part.split("\t"))


def echo(text: str, *, err: bool = False, nl: bool = True) -> None:
    """Print a line as `click.echo` does, cleaned where it goes to a terminal."""
    click.echo(clean(text) if _is_terminal(sys.stderr if err else sys.stdout) else text, err=err, nl=nl)


def _is_terminal(stream: TextIO) -> bool:
    return stream.isatty()


def write(console: "Console", text: str, *, style: str = "") -> None:
    """Print a line on a console, without markup, cleaned where it goes to a terminal."""
    text = clean(text) if console.is_terminal else text
    console.print(text, markup=False, highlight=False, style=style or None, soft_wrap=True)
