"""`knoll`: what kubectl has no word for."""

import sys

import click

from knoll.cli.build import build
from knoll.cli.deploy import deploy
from knoll.cli.describe import describe
from knoll.cli.dev import dev
from knoll.cli.export import export
from knoll.cli.services import logs, status
from knoll.cli.setup import completion, doctor, kubeconfig
from knoll.cli.traffic import rollback, traffic
from knoll.cli.up import up
from knoll.errors import KnollError, NotFoundError, StoreUnavailableError

EXIT_CODES: dict[type[KnollError], int] = {StoreUnavailableError: 3, NotFoundError: 4}


class _Commands(click.Group):
    """Turns the errors we raise on purpose into one line and an exit code; anything else is a bug and shows."""

    def invoke(self, ctx: click.Context) -> object:
        try:
            return super().invoke(ctx)
        except KnollError as error:
            click.echo(f"error: {error}", err=True)
            sys.exit(EXIT_CODES.get(type(error), 1))


@click.group(cls=_Commands, context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 120})
@click.version_option(package_name="knoll")
def main() -> None:
    """Knative Serving in a box, on plain Docker and Redis.

    Objects are applied and read with kubectl, kn or curl; this command does the rest.

    Exit codes: 0 done, 1 it failed and says why, 2 the command line was wrong, 3 the platform does not answer,
    4 what was named does not exist.
    """


for command in (
    up,
    build,
    deploy,
    dev,
    status,
    describe,
    traffic,
    rollback,
    logs,
    export,
    doctor,
    kubeconfig,
    completion,
):
    main.add_command(command)
