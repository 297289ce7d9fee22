"""Every Redis key and channel of Knoll. No other module contains one.

All names begin with `knoll:`; RQ's own begin with `rq:`.
"""

RESOURCE_VERSION = "knoll:revision"
"""Integer: the newest resource version. Incremented with each write to an object, in the same script."""

EPOCH = "knoll:epoch"
"""String: `<replication id of the primary> <epoch milliseconds of its promotion, or 0>`. Only with replicas."""

EVENTS = "knoll:events"
"""Stream: one entry for each write to an object, ID `<resource version>-0`; trimmed by length."""

BUILD_JOBS = "knoll-builds"
"""RQ queue: image builds."""

BUILD_JOBS_CONFIRMED = "rq:knoll:confirmed"
"""String: written after a job was enqueued, so that replicas confirm both. Only with replicas."""

BUILD_TURNS = "knoll:build-turns"
"""Hash: namespace to epoch seconds at which one of its builds last started."""

NAMESPACES_WITH_IMAGES = "knoll:namespaces-with-images"
"""Set: every namespace that has `built_images`."""

REGISTRY_IMAGES = "knoll:registry-images"
"""Set: ids of the images that the platform's registry has. Only on several machines."""

REPORTS = "knoll:reports"
"""Channel: `reports.Report` of each activator, once a second unless it is empty."""

POKES = "knoll:pokes"
"""Channel: `reports.Poke`, immediately when a request has no free instance."""

REQUEST_LOG_QUESTIONS = "knoll:request-log"
"""Channel: `request_log.Question`, when a user reads the request log of an instance."""

NODE_HEARTBEATS = "knoll:node-heartbeats"
"""Hash: node to the time of its last heartbeat by Redis' clock. Not written to the append-only file."""

TOKEN_KEY = "knoll:token-key"  # noqa: S105 - the key's name, not what lies there
"""String: encrypted PEM of the key that signs ServiceAccount tokens, created on first use."""


def objects(resource: str) -> str:
    """Hash: `namespace/name` to `<resource version>\\n<JSON>`. Written only by the store's script."""
    return f"knoll:objects:{resource}"


def version_epoch(counter: str) -> str:
    """String: replication id of the primary under which a counter of versions was last raised. Only with replicas."""
    return f"{counter}:epoch"


def owned(uid: str) -> str:
    """Set: `resource namespace/name` of each object whose ownerReferences name this uid."""
    return f"knoll:owned:{uid}"


def lease(name: str) -> str:
    """String with expiry: the holder of the lease `name`."""
    return f"knoll:lease:{name}"


def lease_freed(name: str) -> str:
    """Channel: a message when the lease `name` is released."""
    return f"knoll:lease:{name}:freed"


def table(name: str) -> str:
    """Hash: a replicated table's entries, field to `<version>\\n<JSON>`."""
    return f"knoll:table:{name}"


def table_version(name: str) -> str:
    """Integer: the table's newest version."""
    return f"knoll:table:{name}:version"


def table_changes(name: str) -> str:
    """Stream: one entry for each change of the table, ID `<version>-0`; trimmed by length."""
    return f"knoll:table:{name}:changes"


def table_followers(name: str) -> str:
    """Hash: follower's id to `<acknowledged version> <epoch seconds of its last heartbeat>`."""
    return f"knoll:table:{name}:followers"


def table_acks(name: str) -> str:
    """Channel: `<follower> <version>` at each acknowledgement."""
    return f"knoll:table:{name}:acks"


def build_log(namespace: str, name: str) -> str:
    """Stream: a build's output, one entry a line; expires with the build."""
    return f"knoll:build-log:{namespace}/{name}"


def built_images(namespace: str) -> str:
    """Hash: images built in a namespace that the engine has, `<tag> <image id>` to `BuiltImage` as JSON."""
    return f"knoll:built-images:{namespace}"


def pulled_images(node: str) -> str:
    """Set: every reference by which an image was pulled on a machine, until it is removed from its engine.

    Args: node: name of the machine; empty on a single one.
    """
    return f"knoll:pulled-images:{node}" if node else "knoll:pulled-images"


def live_builder(host: str) -> str:
    """String with expiry: exists while a builder runs. Only on several machines. Args: host: its host name."""
    return f"knoll:builder:{host}"


def request_log_answers(question: str) -> str:
    """Channel: `request_log.Answer` of each activator."""
    return f"knoll:request-log:{question}"
