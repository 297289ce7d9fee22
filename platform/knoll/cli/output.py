"""What commands print: for scripts as JSON or YAML, for people as tables."""

from collections.abc import Callable
from datetime import UTC, datetime
from typing import Any, TypeVar

import click
import msgspec
import yaml
from rich.console import Console
from rich.table import Table

from knoll.cli.terminal import echo

R = TypeVar("R")

_WIDE = 1000
"""Columns of a table: a name or an address that is cut short is of no use."""
_UNITS = ((86400, "d"), (3600, "h"), (60, "m"), (1, "s"))


def output_option(command: Callable[..., R]) -> Callable[..., R]:
    """`--output`; the command gets it as `output`: text, json or yaml."""
    choice = click.Choice(["text", "json", "yaml"])
    return click.option("-o", "--output", type=choice, default="text", show_default=True)(command)


def show(found: Any, output: str) -> None:
    """Print for scripts."""
    if output == "json":
        echo(msgspec.json.format(msgspec.json.encode(found)).decode())
    else:
        echo(yaml.safe_dump(found, sort_keys=False), nl=False)


def table(*columns: str) -> Table:
    """A table as kubectl's."""
    return Table(*columns, box=None, pad_edge=False)


def print_table(found: Table) -> None:
    """Print it as wide as it is, without the blanks that fill up its last column."""
    console = Console(width=_WIDE, highlight=False, markup=False)
    with console.capture() as captured:
        console.print(found)
    echo("\n".join(line.rstrip() for line in captured.get().splitlines()))


def one_line(text: str) -> str:
    """Text of several lines for a cell of a table."""
    return " ".join(text.split())


def age(timestamp: str, now: datetime | None = None) -> str:
    """How long ago, in one unit as kubectl says it: `45s`, `12m`, `3h`, `8d`; empty without a time.

    Args: timestamp: RFC 3339.
    """
    if not timestamp:
        return ""
    seconds = max(0, int(((now or datetime.now(UTC)) - datetime.fromisoformat(timestamp)).total_seconds()))
    size, unit = next(((size, unit) for size, unit in _UNITS if seconds >= size), (1, "s"))
    return f"{seconds // size}{unit}"
