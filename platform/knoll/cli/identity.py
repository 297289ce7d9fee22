"""`knoll kubeconfig`: the address of a platform and credentials for kubectl, kn and other machines."""

import re

import click

from knoll.auth import kubeconfig as files
from knoll.cli.client import ApiClient
from knoll.cli.connection import client_options
from knoll.values.errors import BadRequestError
from knoll.values.kinds import CONFIG_MAP

_SECONDS = {"s": 1, "m": 60, "h": 3600, "d": 86400}


def duration(text: str) -> int:
    """Return the seconds of a duration such as `90m`, `24h`, `365d`. Raises: BadRequestError."""
    match = re.fullmatch(r"([0-9]{1,9})([smhd])", text)
    if not match:
        raise BadRequestError(
            f"--duration {text!r} is not a valid duration: use a number with s, m, h or d, such as 24h or 365d"
        )
    return int(match[1]) * _SECONDS[match[2]]


@click.command()
@click.option(
    "--service-account",
    metavar="NAME",
    help="ServiceAccount of the namespace to issue a token for.  [default: the owner's]",
)
@click.option("--duration", "life", default="365d", show_default=True, help="Lifetime of the token.")
@client_options
def kubeconfig(client: ApiClient, namespace: str, service_account: str | None, life: str) -> None:
    """Print a kubeconfig: `knoll kubeconfig > knoll.yaml; export KUBECONFIG=$PWD/knoll.yaml`.

    With --service-account, it grants the permissions that RoleBindings give to that ServiceAccount.
    """
    import yaml

    server, authority = client.server, ""
    public = client.find(CONFIG_MAP, *files.CLUSTER_INFO)
    if public is not None:
        cluster = files.Cluster.of(yaml.safe_load(public["data"]["kubeconfig"]))
        server, authority = cluster.server, cluster.authority
    if service_account is None:
        owner, name = files.OWNER
    else:
        owner, name = namespace, service_account
    token = client.token(owner, name, duration(life))
    document = files.document(server, authority, token, namespace=namespace, user=name)
    click.echo(yaml.safe_dump(document, sort_keys=False), nl=False)
