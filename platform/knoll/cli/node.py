"""`knoll node`: adds, lists, drains and removes machines of the platform."""

import os
import tempfile
import time
from pathlib import Path
from typing import Any

import click

from knoll.auth import join_tokens, key_files, redis_acl
from knoll.auth.join_tokens import JoinToken
from knoll.cli.client import ApiClient, chunks
from knoll.cli.cluster import (
    SWARM_PORT,
    ClusterError,
    address_problems,
    default_name,
    name_problems,
    platform_option,
    store_token,
)
from knoll.cli.connection import client_options
from knoll.cli.identity import duration
from knoll.cli.output import output_option, show
from knoll.cli.terminal import echo
from knoll.cluster import bundle, engine_cli, joining, leaving
from knoll.cluster.bundle import Bundle
from knoll.cluster.managers import MANAGER, annotations_of, managers_of, quorum_problem
from knoll.cluster.members import account_of
from knoll.cluster.node_folder import NodeFolder
from knoll.process.settings import BUILDKIT_IMAGE
from knoll.values import kinds, versions
from knoll.values.errors import BadRequestError, ConflictError, KnollError
from knoll.values.json import Json
from knoll.values.node import CONTROL_PLANE, ROLE_LABEL

HOME = "/etc/knoll"
"""Folder of the platform's files on a machine that joins."""
REDIS_IMAGE = "redis:8"
_CHECK_SECONDS = 1.0
_GROUP_FILES = tuple(key_files.group_file(user) for user in (redis_acl.REPLICA, redis_acl.SENTINEL))


class DrainError(KnollError):
    """Instances are still on the node; the message names them."""


@click.group()
def node() -> None:
    """Add, list, drain and remove machines of a cluster."""


@node.command("join-command")
@click.option("--duration", "life", default="1h", show_default=True, help="How long the command is valid.")
@click.option("--manager", is_flag=True, help="Make the machine a manager: it may lead, and has a copy of all objects.")
@platform_option
@client_options
def join_command(life: str, manager: bool, platform: str, client: ApiClient, namespace: str) -> None:
    """Print the command that makes another machine a node. It needs Docker with Compose, curl, and nothing else.

    Run this on a manager, such as the first machine. With three managers, the platform survives the loss of any
    machine. The command contains a secret: with it, a machine gets the platform's keys.
    """
    seconds = duration(life)
    folder = Path(engine_cli.project_folder(platform))
    settings = bundle.parse_dotenv((folder / ".env").read_text()) if (folder / ".env").exists() else {}
    address = settings.get("KNOLL_NODE_ADDRESS")
    if not address:
        raise BadRequestError("this machine is in no cluster: run `knoll cluster init`")
    if not bundle.is_manager(settings):
        raise BadRequestError("this machine is no manager: run this on a manager, such as the first machine")
    host = f"[{address}]" if ":" in address else address
    server = f"https://{host}:{bundle.port(settings, 'KNOLL_API_TLS_PORT')}"
    pin = joining.pin_of_server(server)
    image = settings.get("KNOLL_IMAGE") or "knoll"
    _check_version(client, image)
    echo("sending the platform's images to its API …", err=True)
    if manager:
        _list_as_manager(client, settings)
    images = [image, BUILDKIT_IMAGE, *([REDIS_IMAGE] if manager else [])]
    token, upload = JoinToken.fresh(), _upload_images(client, images)
    script = bundle.script(server, pin, image, HOME, settings, manager=manager)
    content = bundle.encode(_bundle(platform, image, folder, settings, manager=manager))
    role = MANAGER if manager else ""
    store_token(client, token, token.data(content, time.time() + seconds, upload, script, role=role))
    command = f"curl -fsSk --pinnedpubkey '{pin}' -H 'Authorization: Bearer {token}' {server}/cluster/script | sudo sh"
    echo(f"valid for {life}, for any number of machines; revoke it with `knoll node forget {token.id}`", err=True)
    click.echo(command)


def _check_version(client: ApiClient, image: str) -> None:
    """Raises: ConflictError: machines with an image could not be in the cluster with those that run."""
    version = engine_cli.run("run", "--rm", "--network", "none", image, "knoll", "--version").decode().split()[-1]
    running = {
        body["metadata"]["name"]: ((body.get("status") or {}).get("nodeInfo") or {}).get("kubeletVersion", "")
        for body in client.list(kinds.NODE, "")
        if _is_ready(body)
    }
    if problem := versions.problem(f"v{version}", running, f"the image {image}"):
        raise ConflictError(problem)


def _bundle(platform: str, image: str, folder: Path, settings: dict[str, str], *, manager: bool) -> Bundle:
    swarm = engine_cli.run("swarm", "join-token", "--quiet", "manager" if manager else "worker").decode().strip()
    address = settings["KNOLL_NODE_ADDRESS"]
    host = f"[{address}]" if ":" in address else address
    keys = {process: engine_cli.read_volume(image, platform, f"keys-{process}") for process in redis_acl.PROCESSES}
    if manager:
        redis = engine_cli.read_volume(image, platform, "keys-redis")
        keys["redis"] = {name: redis[name] for name in _GROUP_FILES}
    return Bundle(
        first_node=settings.get("KNOLL_FIRST_NODE") or settings["KNOLL_NODE"],
        first_address=settings.get("KNOLL_FIRST_ADDRESS") or address,
        settings={key: settings[key] for key in bundle.KEPT_SETTINGS if key in settings},
        keys=keys,
        files={name: (folder / name).read_bytes() for name in bundle.FILES},
        swarm_token=swarm,
        swarm_address=f"{host}:{SWARM_PORT}",
        manager=manager,
    )


def _list_as_manager(client: ApiClient, settings: dict[str, str]) -> None:
    """List this machine as a manager, if an earlier version has made it the first of several."""
    account = client.get(kinds.SERVICE_ACCOUNT, join_tokens.NAMESPACE, account_of(settings["KNOLL_NODE"]))
    if not managers_of([account]):
        slot = int(settings.get("KNOLL_MANAGER_SLOT") or "1")
        annotations = {**account["metadata"]["annotations"], **annotations_of(slot, settings["KNOLL_NODE_ADDRESS"])}
        metadata = {**account["metadata"], "annotations": annotations}
        client.replace(kinds.SERVICE_ACCOUNT, {**account, "metadata": metadata})


def _upload_images(client: ApiClient, images: list[str]) -> str:
    with tempfile.TemporaryDirectory() as path:
        archive = Path(path, "images.tar")
        with archive.open("wb") as target:
            engine_cli.saved(images, target)
        return client.upload(join_tokens.NAMESPACE, chunks(archive), archive.stat().st_size)


@node.command("forget")
@click.argument("token_id")
@client_options
def forget(token_id: str, client: ApiClient, namespace: str) -> None:
    """Make a join command invalid before it expires. TOKEN_ID is the part of its token before the dot."""
    client.delete(kinds.SECRET, join_tokens.NAMESPACE, f"knoll-join-{token_id}")
    click.echo(f"the join command {token_id} is no longer valid")


@node.command(hidden=True)
@click.option("--server", required=True, help="The platform's API.")
@click.option("--pin", required=True, help="Hash of the public key of its certificate.")
@click.option("--home", required=True, type=click.Path(path_type=Path), help="Folder for the platform's files.")
@click.option("--address", default="", help="IP address at which other machines reach this one.")
@click.option("--port", "ports", multiple=True, help="Port of each machine, NAME=PORT by the name of its setting.")
@click.option("--name", default="", help="Name of this machine.")
@click.option("--manager", is_flag=True, help="It becomes a manager.")
def join(server: str, pin: str, home: Path, address: str, ports: tuple[str, ...], name: str, manager: bool) -> None:
    """Make this machine a node; the command that `knoll node join-command` prints runs this."""
    try:
        token = JoinToken.parse(os.environ.get("KNOLL_JOIN_TOKEN", ""))
    except ValueError as error:
        raise BadRequestError(f"KNOLL_JOIN_TOKEN: {error}") from error
    name, address = name or default_name(), address or joining.own_address(server)
    engine = engine_cli.info()
    env = home / ".env"
    before = bundle.parse_dotenv(env.read_text()) if env.exists() else {}
    problems = [*engine_cli.swarm_problems(engine), *name_problems(name), *bundle.role_problems(manager, before)]
    if not before.get("KNOLL_NODE"):
        # Before anything is received: a machine that cannot serve the platform must not become a member of it.
        problems += address_problems(address, engine, bundle.parse_dotenv("\n".join(ports)))
    elif before["KNOLL_NODE"] != name:
        problems.append(f"it is the node {before['KNOLL_NODE']} already ({env})")
    _check(problems)
    folder = NodeFolder(home / "node")
    joined = joining.join(server, pin, token, name, folder, address)
    received = bundle.decode(joined.bundle)
    if not before.get("KNOLL_NODE"):
        _check(list(address_problems(address, engine, received.settings)))
    settings = bundle.node_settings(received, name, address, before)
    if received.manager:
        slot = next(each.slot for each in joined.managers if each.name == name)
        settings |= bundle.manager_settings(slot, joined.id)
    _write_platform(home, folder, received, settings)
    _join_swarm(engine, received, address)
    role = "manager" if received.manager else "node"
    click.echo(f"this machine is the {role} {name} ({address}) of the platform at {received.first_address}")


def _check(problems: list[str]) -> None:
    if problems:
        raise ClusterError("\n  - ".join(["this machine cannot join:", *problems]))


def _write_platform(home: Path, folder: NodeFolder, received: Bundle, settings: dict[str, str]) -> None:
    for relative, content in received.files.items():
        if relative in bundle.FILES:  # the platform must not write any other path
            path = home / relative
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(content)
    platform, image = settings.get("KNOLL_PLATFORM") or "knoll", settings.get("KNOLL_IMAGE") or "knoll"
    engine_cli.write_volume(image, platform, "node", folder.files())
    names = {key_files.PASSWORD, *key_files.HOLDERS}
    for process in redis_acl.PROCESSES:
        keys = {name: content for name, content in received.keys.get(process, {}).items() if name in names}
        engine_cli.write_volume(image, platform, f"keys-{process}", keys)
    command = home / bundle.COMMAND
    socket = os.environ.get("KNOLL_DOCKER_SOCKET") or "/var/run/docker.sock"
    command.write_text(bundle.command(image, socket, str(home), settings.get("KNOLL_API_PORT") or "8001"))
    command.chmod(0o755)
    if received.manager:
        group = {name: content for name, content in received.keys.get("redis", {}).items() if name in _GROUP_FILES}
        engine_cli.write_volume(image, platform, "keys-redis", group, 0o755)  # Redis runs as another user
    # Last: a machine with this file counts as joined.
    (home / ".env").write_text(bundle.dotenv(settings))


def _join_swarm(engine: Json, received: Bundle, address: str) -> None:
    if (engine.get("Swarm") or {}).get("LocalNodeState") == "active":
        return
    host = f"[{address}]" if ":" in address else address
    engine_cli.run(
        "swarm", "join", "--token", received.swarm_token, "--advertise-addr", address, "--listen-addr", f"{host}:2377",
        received.swarm_address,
    )  # fmt: skip


@node.command()
@output_option
@client_options
def ls(output: str, client: ApiClient, namespace: str) -> None:
    """List the machines and the number of their instances."""
    pods = client.list_all(kinds.POD)
    listed = [_row(body, pods) for body in client.list(kinds.NODE, "")]
    if output != "text":
        show(listed, output)
        return
    rows = [
        ("NAME", "STATUS", "ROLES", "ADDRESS", "INSTANCES", "VERSION"),
        *(tuple(map(str, row.values())) for row in listed),
    ]
    widths = [max(len(row[at]) for row in rows) for at in range(len(rows[0]))]
    for row in rows:
        echo("   ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip())


def _row(body: Json, pods: list[dict[str, Any]]) -> dict[str, Any]:
    name, status = body["metadata"]["name"], body.get("status") or {}
    state = "Ready" if _is_ready(body) else "NotReady"
    if body.get("spec", {}).get("unschedulable"):
        state += ",SchedulingDisabled"
    addresses = {each["type"]: each["address"] for each in status.get("addresses") or ()}
    return {
        "name": name,
        "status": state,
        "roles": ",".join(_roles(body)) or "<none>",
        "address": addresses.get("InternalIP", ""),
        "instances": sum(pod.get("spec", {}).get("nodeName") == name for pod in pods),
        "version": (status.get("nodeInfo") or {}).get("kubeletVersion", ""),
    }


def _roles(body: Json) -> list[str]:
    """Return the roles of a machine as `kubectl get nodes` shows them."""
    labels = body["metadata"].get("labels") or {}
    return sorted(name.removeprefix(ROLE_LABEL) for name in labels if name.startswith(ROLE_LABEL))


def _is_ready(body: Json) -> bool:
    conditions = (body.get("status") or {}).get("conditions") or ()
    return any(each["type"] == "Ready" and each["status"] == "True" for each in conditions)


@node.command()
@click.argument("name")
@click.option("--timeout", default="10m", show_default=True, help="How long to wait until its instances have ended.")
@client_options
def drain(name: str, timeout: str, client: ApiClient, namespace: str) -> None:
    """Drain a machine: it gets no new instances, and its instances finish their requests and end.

    `knoll node uncordon NAME` allows new instances again.
    """
    _drain(client, name, timeout)


def _drain(client: ApiClient, name: str, timeout: str) -> None:
    """Raises: DrainError: its instances did not end in time."""
    seconds = duration(timeout)
    _set_unschedulable(client, name, unschedulable=True)
    asked: set[str] = set()
    deadline = time.monotonic() + seconds
    while pods := client.list_all(kinds.POD, f"spec.nodeName={name}"):
        for pod in pods:
            meta = pod["metadata"]
            if meta["uid"] not in asked:
                asked.add(meta["uid"])
                if not meta.get("deletionTimestamp"):
                    client.delete(kinds.POD, meta["namespace"], meta["name"])
                    echo(f"{meta['namespace']}/{meta['name']} ends")
        if time.monotonic() > deadline:
            left = ", ".join(f"{pod['metadata']['namespace']}/{pod['metadata']['name']}" for pod in pods[:5])
            raise DrainError(f"after {timeout}, {len(pods)} instances are still on {name}: {left}")
        time.sleep(_CHECK_SECONDS)
    echo(f"{name} is drained")


@node.command()
@click.argument("name")
@client_options
def uncordon(name: str, client: ApiClient, namespace: str) -> None:
    """Allow new instances on a machine again, after `knoll node drain`."""
    _set_unschedulable(client, name, unschedulable=False)
    echo(f"{name} may get instances")


def _set_unschedulable(client: ApiClient, name: str, *, unschedulable: bool) -> None:
    while True:
        body = client.get(kinds.NODE, "", name)
        if bool(body.get("spec", {}).get("unschedulable")) is unschedulable:
            return
        try:
            client.replace(kinds.NODE, {**body, "spec": {**body.get("spec", {}), "unschedulable": unschedulable}})
        except ConflictError:
            continue  # its status changed meanwhile
        return


@node.command()
@click.argument("name")
@click.option("--force", is_flag=True, help="Also remove a machine that is still running.")
@client_options
def rm(name: str, force: bool, client: ApiClient, namespace: str) -> None:
    """Remove a machine: its credentials are revoked, and the other machines refuse its connections."""
    body = client.find(kinds.NODE, "", name)
    account = account_of(name)
    if client.find(kinds.SERVICE_ACCOUNT, join_tokens.NAMESPACE, account) is None and body is None:
        raise BadRequestError(f"there is no node {name}")
    engine_id = str((body or {}).get("spec", {}).get("providerID", "")).removeprefix("docker://")
    if engine_id:
        _check_engine(name, engine_id)
    if not force and (problem := _quorum_problem(client, name)):
        raise ConflictError(f"{problem}; --force removes it nevertheless, and the platform may stop")
    is_manager = CONTROL_PLANE in ((body or {}).get("metadata", {}).get("labels") or {})
    if body is not None and _is_ready(body) and not force:
        raise ConflictError(
            f"{name} is running: run `{HOME}/{bundle.COMMAND} node leave` there first, which drains it and stops the "
            "platform there, or use --force"
        )
    if client.find(kinds.SERVICE_ACCOUNT, join_tokens.NAMESPACE, account) is not None:
        client.delete(kinds.SERVICE_ACCOUNT, join_tokens.NAMESPACE, account)
    if engine_id:
        engine_cli.remove_node(engine_id, manager=is_manager)
    if body is not None:
        client.delete(kinds.NODE, "", name)  # last: without it, a second attempt would not know the machine's engine
    echo(f"{name} was removed; it still has copies of the platform's keys for Redis and Secrets")


def _quorum_problem(client: ApiClient, name: str) -> str:
    ready = {body["metadata"]["name"]: _is_ready(body) for body in client.list(kinds.NODE, "")}
    return quorum_problem(name, managers_of(client.list(kinds.SERVICE_ACCOUNT, join_tokens.NAMESPACE)), ready)


def _check_engine(name: str, engine_id: str) -> None:
    """Raises: ConflictError: the engine here is that of the machine, or cannot remove it from the Swarm."""
    swarm = engine_cli.info().get("Swarm") or {}
    if swarm.get("NodeID") == engine_id:
        raise ConflictError(
            f"{name} is this machine, which cannot remove itself: run this on another manager (`knoll node ls`); the "
            "only manager cannot be removed"
        )
    if not swarm.get("ControlAvailable"):
        raise ConflictError("the engine here does not manage the machines: run this on a manager (`knoll node ls`)")


@node.command()
@click.option(
    "--home",
    envvar="KNOLL_HOME",
    default=HOME,
    show_default=True,
    type=click.Path(path_type=Path),
    help="Folder of the platform's files.",
)
@click.option("--timeout", default="10m", show_default=True, help="How long to wait until its instances have ended.")
@click.option("--no-drain", is_flag=True, help="End its instances at once, with their requests.")
@client_options
def leave(home: Path, timeout: str, no_drain: bool, client: ApiClient, namespace: str) -> None:
    """Take this machine out of the platform: drain it, and remove everything that the platform made here.

    Run this on the machine that leaves, as `/etc/knoll/knoll node leave`; images stay. It may be repeated.
    """
    env = home / ".env"
    settings = bundle.parse_dotenv(env.read_text()) if env.exists() else {}
    name = settings.get("KNOLL_NODE")
    if not name:
        raise BadRequestError(
            f"this machine is no node: {env} with KNOLL_NODE is missing (is it elsewhere? set --home)"
        )
    if not settings.get("KNOLL_FIRST_NODE"):
        raise ConflictError(
            f"{name} is the first machine, whose files are your own: with other managers, run `docker compose down` in "
            f"its folder, and `knoll node rm {name}` on one of them"
        )
    if bundle.is_manager(settings) and (problem := _quorum_problem(client, name)):
        raise ConflictError(problem)
    if not no_drain:
        try:
            _drain(client, name, timeout)
        except DrainError:
            raise
        except KnollError as error:
            raise ConflictError(
                f"{name} was not drained: {error}; use --no-drain to end its instances with their requests"
            ) from error
    echo("removing the platform from this machine …")
    leaving.remove_platform(settings.get("KNOLL_PLATFORM") or "knoll", settings.get("KNOLL_IMAGE") or "knoll")
    leaving.leave_swarm(engine_cli.info())
    leaving.remove_files(home)
    echo(f"{name} has left; `knoll node rm {name}` on a manager revokes its credentials")
