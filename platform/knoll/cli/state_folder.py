"""The state folder of `knoll up`."""

import os
from collections.abc import Callable
from pathlib import Path
from typing import TypeVar

import click

R = TypeVar("R")


def data_folder() -> Path:
    """Return the default state folder."""
    named = os.environ.get("KNOLL_DATA")
    return Path(named) if named else Path.home() / ".local/share/knoll"


def data_option(command: Callable[..., R]) -> Callable[..., R]:
    """Add `--data`, passed to the command as `data`, a path that may not exist."""
    return click.option(
        "--data",
        envvar="KNOLL_DATA",
        type=click.Path(file_okay=False, path_type=Path),
        default=data_folder,
        show_default="~/.local/share/knoll",
        help="Folder with the files of Redis and the uploads.",
    )(command)
