"""`knoll deploy`: from a folder to a URL."""

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path

import click
from rich.console import Console

from knoll.cli import terminal
from knoll.cli.build import recipe_for, run, upload, verbose_option
from knoll.cli.client import ApiClient
from knoll.cli.connection import client_options
from knoll.cli.output import output_option, show
from knoll.cli.service_update import until_ready, write
from knoll.cli.services import percents, summary
from knoll.cli.terminal import echo
from knoll.values.errors import BadRequestError
from knoll.values.json import Json


@dataclass(frozen=True, slots=True)
class Deployment:
    """A folder and the Service that is built from it."""

    client: ApiClient
    namespace: str
    name: str
    source: Path
    dockerfile: str = "Dockerfile"
    variables: Mapping[str, str] = field(default_factory=dict)
    verbose: bool = False
    console: Console = field(default_factory=lambda: Console(stderr=True))

    def upload(self) -> str:
        """Upload the current content of the folder; return its id, which equal content shares."""
        recipe = recipe_for(self.source, self.dockerfile)
        return upload(self.client, self.namespace, self.source, self.dockerfile, self.console, recipe)

    def serve(self, upload_id: str, change: Callable[[Json], None] | None = None) -> Json:
        """Build an upload, wait until a revision of it is ready, and return the Service.

        Args: change: applied to the Service in the same write.

        Raises: BuildFailedError, NotReadyError; the previous revision keeps serving then.
        """
        tag = f"{self.name}:{upload_id.removeprefix('sha256-')[:12]}"
        source = {"dockerfile": self.dockerfile, "source": {"upload": {"id": upload_id}}}
        run(self.client, self.namespace, tag, source, self.console, verbose=self.verbose)

        def with_image(service: Json) -> None:
            set_image(service, tag, self.variables)
            if change:
                change(service)

        written = write(self.client, self.namespace, self.name, with_image)
        with self.console.status(f"waiting for {self.name} to become ready"):
            generation = written["metadata"]["generation"]

            def waiting(obstacle: str) -> None:
                terminal.write(self.console, f"not ready yet: {obstacle}")

            return until_ready(self.client, self.namespace, self.name, generation, waiting)


def source_options(command: Callable[..., None]) -> Callable[..., None]:
    """Add the options of `deploy` and `dev` that describe the folder."""
    command = verbose_option(command)
    command = click.option("-e", "--env", multiple=True, metavar="NAME=VALUE", help="Environment variable of the app.")(
        command
    )
    command = click.option(
        "-f", "--file", "dockerfile", default="Dockerfile", show_default=True, help="Dockerfile in the source."
    )(command)
    command = click.option("--name", help="Name of the Service.  [default: the folder's name]")(command)
    folder = click.Path(exists=True, file_okay=False, path_type=Path)
    return click.argument("source", type=folder, default=".")(command)


@click.command()
@source_options
@output_option
@client_options
def deploy(
    source: Path,
    name: str | None,
    dockerfile: str,
    env: tuple[str, ...],
    verbose: bool,
    output: str,
    client: ApiClient,
    namespace: str,
) -> None:
    """Build the folder SOURCE, deploy it as a new revision of its Service, and print the URL."""
    deployment = Deployment(client, namespace, name or name_of(source), source, dockerfile, variables(env), verbose)
    status = summary(deployment.serve(deployment.upload()))
    if output != "text":
        return show(status, output)
    echo(f"{status['url']}")
    print_summary(deployment.console, status)
    return None


def print_summary(console: Console, status: Json) -> None:
    """Print the revision and traffic of a Service, and how to call it."""
    latest = status["latestReadyRevision"]
    console.print(f"[bold]revision[/] {latest}   [bold]traffic[/] {percents(status['traffic'])}")
    console.print(f"[bold]call it[/]  curl {status['url']}", soft_wrap=True)
    if not status["traffic"].get(latest):
        console.print(f"It gets no requests yet: knoll traffic {status['name']} --to-latest")


def set_image(service: Json, image: str, variables: Mapping[str, str]) -> None:
    """Set the image and variables of the serving container."""
    template = service["spec"]["template"]
    containers = template["spec"]["containers"]
    # Of several containers, the one with a port serves requests.
    container = next((candidate for candidate in containers if candidate.get("ports")), containers[0])
    container["image"] = image
    kept = [candidate for candidate in container.get("env", []) if candidate["name"] not in variables]
    if kept or variables:
        container["env"] = [*kept, *({"name": key, "value": value} for key, value in variables.items())]
    # A revision name chosen by the user is valid for one revision only.
    template.get("metadata", {}).pop("name", None)


def name_of(source: Path) -> str:
    """Derive a Service name from a folder name. Raises: BadRequestError when it does not start with a letter."""
    name = re.sub(r"[^a-z0-9]+", "-", source.resolve().name.lower()).strip("-")[:50].strip("-")
    if not name or not name[0].isalpha():
        raise BadRequestError(f"cannot derive a Service name from {source.resolve()}; pass --name")
    return name


def variables(assignments: tuple[str, ...]) -> dict[str, str]:
    """Parse `NAME=VALUE` arguments. Raises: click.BadParameter."""
    by_name = {}
    for text in assignments:
        name, separator, value = text.partition("=")
        if not separator or not name:
            raise click.BadParameter(f"{text!r} is not of the form NAME=VALUE", param_hint="--env")
        by_name[name] = value
    return by_name
