"""`knoll kubeconfig`: how kubectl, kn and other people's machines find a platform and say who they are."""

import re

import click

from knoll.auth import kubeconfig as files
from knoll.cli.client import ApiClient
from knoll.cli.connection import client_options
from knoll.values.errors import BadRequestError
from knoll.values.kinds import CONFIG_MAP

_SECONDS = {"s": 1, "m": 60, "h": 3600, "d": 86400}


def duration(text: str) -> int:
    """Seconds of a duration such as `90m`, `24h`, `365d`. Raises: BadRequestError."""
    found = re.fullmatch(r"([0-9]{1,9})([smhd])", text)
    if not found:
        raise BadRequestError(f"--duration {text!r} is no duration: a number with s, m, h or d, such as 24h or 365d")
    return int(found[1]) * _SECONDS[found[2]]


@click.command()
@click.option("--service-account", metavar="NAME", help="Whose token, in the namespace; by default the owner's.")
@click.option("--duration", "life", default="365d", show_default=True, help="How long the token is good for.")
@client_options
def kubeconfig(client: ApiClient, namespace: str, service_account: str | None, life: str) -> None:
    """Print a kubeconfig: `knoll kubeconfig > knoll.yaml; export KUBECONFIG=$PWD/knoll.yaml`.

    With --service-account it is one for somebody who may do what the RoleBindings of that ServiceAccount say.
    """
    import yaml

    server, authority = client.server, ""
    public = client.find(CONFIG_MAP, *files.CLUSTER_INFO)
    if public is not None:
        found = files.Cluster.of(yaml.safe_load(public["data"]["kubeconfig"]))
        server, authority = found.server, found.authority
    if service_account is None:
        owner, name = files.OWNER
    else:
        owner, name = namespace, service_account
    token = client.token(owner, name, duration(life))
    document = files.document(server, authority, token, namespace=namespace, user=name)
    click.echo(yaml.safe_dump(document, sort_keys=False), nl=False)
