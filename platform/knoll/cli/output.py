"""Output of commands: JSON and YAML for scripts, tables for people."""

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
"""Width of a table in columns: truncated names and addresses are useless."""
_UNITS = ((86400, "d"), (3600, "h"), (60, "m"), (1, "s"))


def output_option(command: Callable[..., R]) -> Callable[..., R]:
    """Add `--output`, passed to the command as `output`: text, json or yaml."""
    choice = click.Choice(["text", "json", "yaml"])
    return click.option("-o", "--output", type=choice, default="text", show_default=True)(command)


def show(value: Any, output: str) -> None:
    """Print a value as JSON or YAML."""
    if output == "json":
        echo(msgspec.json.format(msgspec.json.encode(value)).decode())
    else:
        echo(yaml.safe_dump(value, sort_keys=False), nl=False)


def table(*columns: str) -> Table:
    """Return an empty table in kubectl's style."""
    return Table(*columns, box=None, pad_edge=False)


def print_table(table: Table) -> None:
    """Print a table at full width, without trailing blanks."""
    console = Console(width=_WIDE, highlight=False, markup=False)
    with console.capture() as captured:
        console.print(table)
    echo("\n".join(line.rstrip() for line in captured.get().splitlines()))


def one_line(text: str) -> str:
    """Join several lines for a cell of a table."""
    return " ".join(text.split())


def age(timestamp: str, now: datetime | None = None) -> str:
    """Return the time since a timestamp in one unit, as kubectl does: `45s`, `12m`, `3h`, `8d`; empty without one.

    Args: timestamp: RFC 3339.
    """
    if not timestamp:
        return ""
    seconds = max(0, int(((now or datetime.now(UTC)) - datetime.fromisoformat(timestamp)).total_seconds()))
    size, unit = next(((size, unit) for size, unit in _UNITS if seconds >= size), (1, "s"))
    return f"{seconds // size}{unit}"
