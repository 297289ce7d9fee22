"""The data that a machine needs to join, and the settings of the machines of a cluster. Pure."""

import re
import shlex
from collections.abc import Iterator, Mapping, Sequence
from ipaddress import ip_address
from types import MappingProxyType

import msgspec

FILES = (
    "compose.yaml",
    "compose.cluster.yaml",
    "compose.manager.yaml",
    "compose.node.yaml",
    "builder/build/buildkitd.sh",
)
"""Files of the platform that a machine needs."""
SINGLE_MACHINE_ENV = ".env.single-machine"
"""Copy of the first machine's `.env` from before it became one of several; scripts/down.sh restores it."""
COMMAND = "knoll"
"""File of the command `knoll` on a machine that joined, beside `FILES`."""
KEPT_SETTINGS = (
    "KNOLL_PLATFORM", "KNOLL_HTTP_PORT", "KNOLL_HTTPS_PORT", "KNOLL_API_PORT", "KNOLL_API_TRUSTS_PLAIN",
    "KNOLL_API_TLS_PORT", "KNOLL_LOG_LEVEL", "KNOLL_INSTANCE_PREFIX", "KNOLL_BUILD_BRIDGE", "KNOLL_AGENT_PORT",
    "KNOLL_RELAY_PORT", "KNOLL_REGISTRY_PORT", "KNOLL_REGISTRY", "COMPOSE_PROFILES",
    "KNOLL_BUILD_FRONTENDS", "KNOLL_IMAGE",
)  # fmt: skip
"""Settings that all machines share."""
NODE_NAME = re.compile(r"[a-z0-9]([a-z0-9.-]{0,50}[a-z0-9])?")
"""Form of the name of a machine. The subject of its certificate, `system:node:NAME`, has at most 64 characters."""
DEFAULT_PORTS = {
    "KNOLL_AGENT_PORT": 7443, "KNOLL_RELAY_PORT": 7444, "KNOLL_API_TLS_PORT": 8444,
    "KNOLL_HTTP_PORT": 8080, "KNOLL_HTTPS_PORT": 8443, "KNOLL_REGISTRY_PORT": 7445,
}  # fmt: skip
"""Ports of a machine without settings, as in compose.yaml and compose.cluster.yaml."""
_CLUSTER = "compose.yaml:compose.cluster.yaml"
_MANAGER = f"{_CLUSTER}:compose.manager.yaml"


class Bundle(msgspec.Struct, frozen=True):
    """Data for a new machine, encrypted with its join token."""

    first_node: str
    """The first machine, which has the registry."""
    first_address: str
    settings: dict[str, str]
    """Settings that all machines share."""
    keys: dict[str, dict[str, bytes]]
    """Key files by process and name."""
    files: dict[str, bytes]
    """Files of the platform by relative path."""
    swarm_token: str
    """Docker Swarm's join token, for workers or for managers."""
    swarm_address: str
    """`ADDRESS:PORT` of a Swarm manager."""
    manager: bool = False
    """Whether the machine becomes a manager; `keys` has the passwords of the group of Redis servers then."""


def encode(bundle: Bundle) -> bytes:
    return msgspec.json.encode(bundle)


def decode(data: bytes) -> Bundle:
    """Raises: ValueError."""
    try:
        return msgspec.json.decode(data, type=Bundle)
    except msgspec.MsgspecError as error:
        raise ValueError(f"the platform sent keys that this version cannot read: {error}") from error


def port(settings: Mapping[str, str], name: str) -> int:
    """Return a port of a machine. Args: name: of its setting, a key of `DEFAULT_PORTS`."""
    return int(settings.get(name) or DEFAULT_PORTS[name])


def first_settings(name: str, address: str, before: Mapping[str, str]) -> dict[str, str]:
    """Return the settings of the first machine. Args: before: its present settings."""
    return {
        **before,
        "COMPOSE_FILE": _CLUSTER,
        "KNOLL_NODE": name,
        "KNOLL_NODE_ADDRESS": address,
        "KNOLL_GATEWAY_ADDRESS": before.get("KNOLL_GATEWAY_ADDRESS") or address,
        "KNOLL_BIND": before.get("KNOLL_BIND") or _any(address),
    }


def manager_settings(slot: int, membership: str) -> dict[str, str]:
    """Return the settings that a manager has in addition. Args: membership: its id."""
    return {
        "COMPOSE_FILE": _MANAGER,
        "KNOLL_NODE_LEADS": "true",
        "KNOLL_MANAGER_SLOT": str(slot),
        "KNOLL_MANAGER_ID": membership,
    }


def is_manager(settings: Mapping[str, str]) -> bool:
    """Return whether a machine with these settings is a manager."""
    return bool(settings.get("KNOLL_NODE")) and settings.get("COMPOSE_FILE") in (_CLUSTER, _MANAGER)


def role_problems(manager: bool, before: Mapping[str, str]) -> Iterator[str]:
    """Yield why a machine that is a node already must not join again.

    Args:
        manager: whether it would become a manager.
        before: its present settings.
    """
    if not before.get("KNOLL_NODE") or is_manager(before) is manager:
        return
    if manager:
        yield "it is no manager: run `/etc/knoll/knoll node leave` here, and remove it with `knoll node rm` first"
    else:
        yield "it is a manager: print the command with `knoll node join-command --manager`"


def node_settings(
    bundle: Bundle, name: str, address: str, before: Mapping[str, str] = MappingProxyType({})
) -> dict[str, str]:
    """Return the settings of a machine that joins. Args: before: those of its own, if it joined earlier."""
    return {
        **{key: value for key, value in before.items() if key not in KEPT_SETTINGS},
        **bundle.settings,
        "COMPOSE_FILE": f"{_CLUSTER}:compose.node.yaml",
        "KNOLL_NODE": name,
        "KNOLL_NODE_ADDRESS": address,
        "KNOLL_NODE_LEADS": "false",
        "KNOLL_GATEWAY_ADDRESS": address,
        "KNOLL_BIND": _any(address),
        "KNOLL_FIRST_NODE": bundle.first_node,
        "KNOLL_FIRST_ADDRESS": bundle.first_address,
    }


def _any(address: str) -> str:
    return "::" if ip_address(address).version == 6 else "0.0.0.0"  # noqa: S104 - the gateway is public


def dotenv(settings: Mapping[str, str]) -> str:
    """Return the text of `.env`."""
    return "".join(f"{key}={shlex.quote(value)}\n" for key, value in sorted(settings.items()))


def parse_dotenv(text: str) -> dict[str, str]:
    """Parse lines `NAME=VALUE` of `.env`, with quotes; comments are dropped. Raises: ValueError."""
    settings = {}
    for line in text.splitlines():
        stripped = line.strip()
        if stripped and not stripped.startswith("#"):
            name, separator, value = stripped.partition("=")
            parts = shlex.split(value, comments=True)
            if not separator or len(parts) > 1:
                raise ValueError(f".env: {line!r} is not of the form NAME=VALUE")
            settings[name.strip()] = parts[0] if parts else ""
    return settings


def changed_dotenv(text: str, settings: Mapping[str, str]) -> str:
    """Return the text of a `.env` with changed settings; its comments and other lines are kept."""
    left = dict(settings)
    lines = []
    for line in text.splitlines():
        name = line.strip().partition("=")[0].strip()
        if name in left:
            lines.append(f"{name}={shlex.quote(left.pop(name))}")
        elif name not in settings:  # the last of several lines would count
            lines.append(line)
    return "\n".join([*lines, dotenv(left)] if left else [*lines, ""])


def script(server: str, pin: str, image: str, home: str, settings: Mapping[str, str], *, manager: bool = False) -> str:
    """Return the shell script that a new machine runs, with a placeholder for its join token.

    Args:
        server: `https://ADDRESS:PORT` of the API.
        pin: hash of the public key of the API's certificate, in the form of curl's `--pinnedpubkey`.
        image: the platform's image.
        home: folder for the platform's files.
        settings: of the first machine; the new one checks their ports before it becomes a member.
    """
    ports = " ".join(f"--port {name}={port(settings, name)}" for name in DEFAULT_PORTS)
    ports += " --manager" if manager else ""
    quoted: Sequence[str] = [shlex.quote(each) for each in (server, pin, image, home)]
    return _SCRIPT.format(server=quoted[0], pin=quoted[1], image=quoted[2], home=quoted[3], ports=ports)


def command(image: str, socket: str, home: str, api_port: str) -> str:
    """Return the script that runs the command `knoll` on a machine that joined, in a container.

    Args:
        socket: of the engine.
        home: folder of the platform's files.
    """
    quoted = [shlex.quote(each) for each in (socket, home, api_port, image)]
    return _COMMAND.format(socket=quoted[0], home=quoted[1], port=quoted[2], image=quoted[3])


_COMMAND = """\
#!/bin/sh
# Runs the command `knoll` of the platform on this machine.
exec docker run --rm --interactive --user root --network host --volume {socket}:/var/run/docker.sock \\
  --volume {home}:{home} --env DOCKER_HOST=unix:///var/run/docker.sock --env KNOLL_HOME={home} \\
  --env KNOLL_SERVER=http://127.0.0.1:{port} {image} knoll "$@"
"""
_SCRIPT = """\
#!/bin/sh
# Makes this machine a node of a Knoll platform. Optional: KNOLL_NODE_NAME, KNOLL_NODE_ADDRESS, KNOLL_HOME.
set -eu
server={server} image={image} home=${{KNOLL_HOME:-{home}}} token='@TOKEN@'
socket=${{DOCKER_HOST:-unix:///var/run/docker.sock}}
socket=${{socket#unix://}}
fail() {{ echo "knoll: $1" >&2; exit 1; }}
command -v docker >/dev/null || fail 'Docker is not installed: https://docs.docker.com/engine/install/'
docker version >/dev/null 2>&1 || fail 'Docker does not respond, or this user may not use it (try with sudo)'
docker compose version >/dev/null 2>&1 || fail "Docker's Compose plugin is not installed (docker-compose-plugin)"
mkdir -p "$home" || fail "the folder $home cannot be created"
echo 'knoll: getting the images of the platform'
curl -fsSk --pinnedpubkey {pin} -H "Authorization: Bearer $token" "$server/cluster/images" | docker load --quiet
docker run --rm --interactive --user root --network host --volume "$socket:/var/run/docker.sock" \\
  --volume "$home:$home" --env KNOLL_JOIN_TOKEN="$token" --env KNOLL_DOCKER_SOCKET="$socket" \\
  --env DOCKER_HOST=unix:///var/run/docker.sock "$image" \\
  knoll node join --server "$server" --pin {pin} --home "$home" --address "${{KNOLL_NODE_ADDRESS:-}}" {ports} \\
  --name "${{KNOLL_NODE_NAME:-$(hostname | cut -d. -f1 | tr 'A-Z_' 'a-z-')}}"
echo 'knoll: starting the platform here'
cd "$home"
docker compose up --detach --no-build --wait
echo "knoll: $home/knoll runs commands here, such as $home/knoll node ls"
"""
