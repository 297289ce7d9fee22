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
    """A folder that becomes a Service, again and again."""

    client: ApiClient
    namespace: str
    name: str
    source: Path
    dockerfile: str = "Dockerfile"
    variables: Mapping[str, str] = field(default_factory=dict)
    verbose: bool = False
    console: Console = field(default_factory=lambda: Console(stderr=True))

    def upload(self) -> str:
        """Send the folder as it is now; the same bytes give the same id."""
        recipe = recipe_for(self.source, self.dockerfile)
        return upload(self.client, self.namespace, self.source, self.dockerfile, self.console, recipe)

    def serve(self, upload_id: str, change: Callable[[Json], None] | None = None) -> Json:
        """Build what was uploaded and wait until a revision of it is ready; returns the Service.

        Args: change: what else to change in the Service, in the same write.

        Raises: BuildFailedError, NotReadyError; what served before serves on then.
        """
        tag = f"{self.name}:{upload_id.removeprefix('sha256-')[:12]}"
        source = {"dockerfile": self.dockerfile, "source": {"upload": {"id": upload_id}}}
        run(self.client, self.namespace, tag, source, self.console, verbose=self.verbose)

        def with_image(service: Json) -> None:
            set_image(service, tag, self.variables)
            if change:
                change(service)

        written = write(self.client, self.namespace, self.name, with_image)
        with self.console.status(f"waiting until {self.name} is ready"):
            generation = written["metadata"]["generation"]

            def waiting(obstacle: str) -> None:
                terminal.write(self.console, f"not ready yet: {obstacle}")

            return until_ready(self.client, self.namespace, self.name, generation, waiting)


def source_options(command: Callable[..., None]) -> Callable[..., None]:
    """What `deploy` and `dev` are told of the folder."""
    command = verbose_option(command)
    command = click.option("-e", "--env", multiple=True, metavar="NAME=VALUE", help="Variable of the app.")(command)
    command = click.option(
        "-f", "--file", "dockerfile", default="Dockerfile", show_default=True, help="Dockerfile in the source."
    )(command)
    command = click.option("--name", help="Name of the Service.  [default: the folder's]")(command)
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
    """Build the folder SOURCE and serve it: a new revision of its Service, and a URL."""
    wanted = Deployment(client, namespace, name or name_of(source), source, dockerfile, variables(env), verbose)
    found = summary(wanted.serve(wanted.upload()))
    if output != "text":
        return show(found, output)
    echo(f"{found['url']}")
    say(wanted.console, found)
    return None


def say(console: Console, found: Json) -> None:
    """Tell a person what a Service does now, and how to call it."""
    latest = found["latestReadyRevision"]
    console.print(f"[bold]revision[/] {latest}   [bold]traffic[/] {percents(found['traffic'])}")
    console.print(f"[bold]call it[/]  curl {found['url']}", soft_wrap=True)
    if not found["traffic"].get(latest):
        console.print(f"No request goes to it yet: knoll traffic {found['name']} --to-latest")


def set_image(service: Json, image: str, variables: Mapping[str, str]) -> None:
    """Have the container that takes the requests run this image, with these variables set."""
    template = service["spec"]["template"]
    containers = template["spec"]["containers"]
    # Of several, the one with a port takes the requests.
    container = next((one for one in containers if one.get("ports")), containers[0])
    container["image"] = image
    kept = [one for one in container.get("env", []) if one["name"] not in variables]
    if kept or variables:
        container["env"] = [*kept, *({"name": key, "value": value} for key, value in variables.items())]
    # A name of the user's own belongs to one revision.
    template.get("metadata", {}).pop("name", None)


def name_of(source: Path) -> str:
    """A Service's name by the folder's. Raises: BadRequestError when it has no letter to begin with."""
    name = re.sub(r"[^a-z0-9]+", "-", source.resolve().name.lower()).strip("-")[:50].strip("-")
    if not name or not name[0].isalpha():
        raise BadRequestError(f"no Service can be named after the folder {source.resolve()}: say --name")
    return name


def variables(words: tuple[str, ...]) -> dict[str, str]:
    """`NAME=VALUE` words as a mapping."""
    found = {}
    for text in words:
        name, sign, value = text.partition("=")
        if not sign or not name:
            raise click.BadParameter(f"{text!r} is not NAME=VALUE", param_hint="--env")
        found[name] = value
    return found
