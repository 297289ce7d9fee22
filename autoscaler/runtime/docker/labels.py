"""Names and labels of everything that Knoll creates on an engine, defined only here. Pure."""

from knoll.engine_proxy import reservations

PLATFORM = "knoll.dev/platform"
ROLE = reservations.ROLE_LABEL
"""`sandbox`, `app`, `init`, `helper`, `network`, `volume` or `reservation`."""
RESERVATION = reservations.ROLE
INSTANCE = "knoll.dev/instance"
SANDBOX = "knoll.dev/sandbox"
"""Container id of the sandbox that an app or init container joined."""
GROUP = "knoll.dev/group"
"""Of a sandbox: the value of `SHIM_GROUP` for its containers."""
SHIM_GROUP = "io.containerd.runc.v2.group"
"""Annotation of containerd: containers with the same value share one shim process."""
DNS = "knoll.dev/dns"
"""Of a sandbox: its DNS server, empty for the engine's."""
ADDRESS = "knoll.dev/address"
REVISION = "knoll.dev/revision"
"""`namespace/name`."""
UID = "knoll.dev/revision-uid"
CONTAINER = "knoll.dev/container"
CONTAINERS = "knoll.dev/containers"
"""Names of all containers of the instance without init containers, in order, separated by commas."""
PORT = "knoll.dev/port"
GRACE = "knoll.dev/grace-seconds"
IMAGE = "knoll.dev/image"
"""The reference of the spec; the container itself is created from an image id."""
RESTARTS = "knoll.dev/restarts"
CREATED = "knoll.dev/instance-created"
"""Epoch seconds."""
STARTED = "knoll.dev/container-started"
"""Epoch seconds."""
ARMED = "knoll.dev/armed"
"""Of a container that was armed: `InstanceSpec.digest`."""
ARM_TOKEN = "knoll.dev/arm-token"  # noqa: S105 - the name of a label
ARM_PORT = "knoll.dev/arm-port"
"""Where the container waits for its release, until then."""
USER_LABELS = "knoll.dev/user-labels"
"""Keys of the spec's own labels, as a JSON list: the engine adds the image's labels to the others."""
VOLUME = "knoll.dev/volume"
"""Of a volume, as `VOLUME_KIND`, `OWNER` and `ABOUT`: the fields of `runtime.model.EngineVolume`."""
VOLUME_KIND = "knoll.dev/volume-kind"
OWNER = "knoll.dev/owner"
ABOUT = "knoll.dev/about"

SPARE = "spare-"


def spare_name(platform: str, token: str) -> str:
    """Return the name of a sandbox without an instance."""
    return f"{platform}.{SPARE}{token}"


def is_spare(platform: str, container_name: str) -> bool:
    return container_name.startswith(f"{platform}.{SPARE}")


def sandbox_name(platform: str, instance: str) -> str:
    return f"{platform}.{instance}"


def container_name(platform: str, instance: str, container: str) -> str:
    return f"{platform}.{instance}.{container}"


def volume_name(platform: str, volume: str) -> str:
    return f"{platform}.{volume}"
