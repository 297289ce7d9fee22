"""`knoll`: the commands that kubectl does not have."""

import atexit
import gc
import importlib
import sys

import click

from knoll import __version__
from knoll.values.errors import KnollError, NotFoundError, StoreUnavailableError

COMMANDS = {
    "up": "up", "down": "down", "build": "build", "deploy": "deploy", "dev": "dev", "status": "services",
    "describe": "describe", "explain": "explain", "traffic": "traffic", "rollback": "traffic", "logs": "services",
    "export": "export", "doctor": "doctor", "kubeconfig": "identity", "secrets": "keys",
    "redis-acl": "keys", "cluster": "cluster", "node": "node", "completion": "doctor",
}  # fmt: skip
"""Name of each command to the module of this package that defines it."""
EXIT_CODES: dict[type[KnollError], int] = {StoreUnavailableError: 3, NotFoundError: 4}

# The final garbage collection, over everything loaded, would take a fifth of a short command's time.
atexit.register(gc.freeze)


class _Commands(click.Group):
    """Imports only the module of the requested command: imports take half of a short command's time.

    Errors of our own base class become one line and an exit code; any other exception is a bug and shows its traceback.
    """

    def list_commands(self, ctx: click.Context) -> list[str]:
        return list(COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        if cmd_name not in COMMANDS:
            return None
        module = importlib.import_module(f"knoll.cli.{COMMANDS[cmd_name]}")
        command: click.Command = getattr(module, cmd_name.replace("-", "_"))
        return command

    def invoke(self, ctx: click.Context) -> object:
        try:
            return super().invoke(ctx)
        except KnollError as error:
            importlib.import_module("knoll.cli.terminal").echo(f"error: {error}", err=True)
            sys.exit(EXIT_CODES.get(type(error), 1))


@click.group(cls=_Commands, context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 120})
@click.version_option(__version__)
def main() -> None:
    """Knative Serving in a box, on plain Docker and Redis.

    Apply and read objects with kubectl, kn or curl; use this command for everything else.

    Exit codes: 0 success, 1 failure, 2 usage error, 3 the platform does not respond, 4 not found.
    """
