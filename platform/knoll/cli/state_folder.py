"""The folder of a platform that `knoll up` runs."""

import os
from collections.abc import Callable
from pathlib import Path
from typing import TypeVar

import click

R = TypeVar("R")


def data_folder() -> Path:
    """The folder that commands use when none is named."""
    named = os.environ.get("KNOLL_DATA")
    return Path(named) if named else Path.home() / ".local/share/knoll"


def data_option(command: Callable[..., R]) -> Callable[..., R]:
    """`--data`; the command gets it as `data`, a path that need not be there."""
    return click.option(
        "--data",
        envvar="KNOLL_DATA",
        type=click.Path(file_okay=False, path_type=Path),
        default=data_folder,
        show_default="~/.local/share/knoll",
        help="Where our Redis and the uploads keep their files.",
    )(command)
