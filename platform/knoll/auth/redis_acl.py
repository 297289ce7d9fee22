"""The permissions of each process in Redis, and the ACL users made from them. Pure.

Each process logs in as a user of its own name, which can access only the keys and channels below. A key that is added
to `keys.py` must be added here (a test compares them); otherwise Redis refuses it (`NOPERM`).

Source: Redis, "ACL": https://redis.io/docs/latest/operate/oss_and_stack/management/security/acl/
"""

import hashlib
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from knoll.messages import builds
from knoll.messages.assignments import ASSIGNMENTS, CLAIMS, PREPARATIONS
from knoll.messages.endpoints import ENDPOINTS
from knoll.messages.gateway_objects import GATEWAY_OBJECTS
from knoll.messages.instances import INSTANCES
from knoll.messages.members import MEMBERS
from knoll.messages.nodes import NODES, REMOVED_NODES
from knoll.messages.routing import ROUTING
from knoll.messages.scale import SCALE
from knoll.redis import keys
from knoll.values import kinds

API, BUILDER, AUTOSCALER, ACTIVATOR = "api", "builder", "autoscaler", "activator"
PROCESSES = (API, BUILDER, AUTOSCALER, ACTIVATOR)
LOADER = "keys"
"""User that may only reload the ACL file."""
HEALTH = "health"
"""User without a password for health checks, which may only set its name and PING. On the sentinels of a cluster it may
also look up the primary, for the forwarder of a machine."""
REPLICA, SENTINEL = "replica", "sentinel"
"""Users with which replicas log in to their primary, and sentinels to servers and to each other."""


@dataclass(frozen=True, slots=True)
class Right:
    """The processes that may access the keys or channels of a pattern."""

    pattern: str
    writers: frozenset[str] = frozenset()
    """Processes with read and write access; of a channel, those that publish or subscribe."""
    readers: frozenset[str] = frozenset()
    """Processes with read access; a channel has none."""
    channel: bool = False


def _key(pattern: str, writers: Iterable[str], readers: Iterable[str] = ()) -> Right:
    return Right(pattern, frozenset(writers), frozenset(readers))


def _channel(pattern: str, users: Iterable[str]) -> Right:
    return Right(pattern, frozenset(users), channel=True)


def _table(name: str, writers: Iterable[str], followers: Iterable[str]) -> tuple[Right, ...]:
    """Permissions of a replicated table: followers read it and acknowledge versions."""
    writers, followers = frozenset(writers), frozenset(followers)
    content = (keys.table(name), keys.table_version(name), keys.table_changes(name))
    return (
        *(_key(key, writers, followers - writers) for key in content),
        _key(keys.version_epoch(keys.table_version(name)), writers),
        _key(keys.table_followers(name), writers | followers),
        _channel(keys.table_acks(name), writers | followers),
    )


def _objects(readers: Mapping[str, Iterable[kinds.Kind]]) -> tuple[Right, ...]:
    """Permissions of objects of every kind; only the API writes them."""
    ids_by_process = {process: {kind.id for kind in given} for process, given in readers.items()}
    return tuple(
        _key(keys.objects(kind.id), {API}, {process for process, given in ids_by_process.items() if kind.id in given})
        for kind in kinds.KINDS
    )


RIGHTS: tuple[Right, ...] = (
    _key(keys.RESOURCE_VERSION, {API}, {BUILDER, AUTOSCALER}),
    _key(keys.version_epoch(keys.RESOURCE_VERSION), {API}),
    _key(keys.EPOCH, {API, BUILDER, AUTOSCALER}, {ACTIVATOR}),
    _key(keys.EVENTS, {API}, {BUILDER, AUTOSCALER}),
    *_objects({
        BUILDER: (
            kinds.BUILD_KIND, kinds.REVISION, kinds.CONFIG_MAP, kinds.SECRET, kinds.SERVICE_ACCOUNT, kinds.ROLE_BINDING,
            kinds.CLUSTER_ROLE_BINDING,
        ),
        AUTOSCALER: (
            kinds.REVISION, kinds.CONFIG_MAP, kinds.SECRET, kinds.SERVICE_ACCOUNT, kinds.VOLUME_CLAIM, kinds.POD,
            kinds.RESOURCE_QUOTA, kinds.NAMESPACE, kinds.NODE,
        ),
    }),
    _key(keys.owned("*"), {API}),
    _key(keys.TOKEN_KEY, {API}, {AUTOSCALER}),
    _key(keys.lease("controllers"), {API}),
    _channel(keys.lease_freed("controllers"), {API}),
    _key(keys.lease("digest-resolver"), {BUILDER}),
    _channel(keys.lease_freed("digest-resolver"), {BUILDER}),
    _key(keys.lease("autoscaler"), {AUTOSCALER}, {API}),
    _channel(keys.lease_freed("autoscaler"), {AUTOSCALER}),
    *_table(ROUTING, {API}, {ACTIVATOR}),
    *_table(ENDPOINTS, {AUTOSCALER}, {ACTIVATOR}),
    *_table(SCALE, {AUTOSCALER}, {API}),
    *_table(INSTANCES, {AUTOSCALER}, {API}),
    *_table(NODES, {AUTOSCALER}, {API, BUILDER, ACTIVATOR}),
    *_table(REMOVED_NODES, {API}, ()),
    *_table(ASSIGNMENTS, {AUTOSCALER}, ()),
    *_table(MEMBERS, {AUTOSCALER}, ()),
    *_table(PREPARATIONS, {AUTOSCALER}, ()),
    *_table(CLAIMS, {AUTOSCALER}, ()),
    _key(keys.NODE_HEARTBEATS, {AUTOSCALER}),
    *_table(GATEWAY_OBJECTS, {API}, {ACTIVATOR}),
    *_table(builds.UNRESOLVED, {API, BUILDER}, {BUILDER}),
    *_table(builds.RESOLUTIONS, {API, BUILDER}, {API}),
    *_table(builds.BUILDS, {API, BUILDER}, {API}),
    _channel(keys.REPORTS, {ACTIVATOR, AUTOSCALER}),
    _channel(keys.POKES, {ACTIVATOR, AUTOSCALER}),
    _channel(keys.REQUEST_LOG_QUESTIONS, {API, ACTIVATOR}),
    _channel(keys.request_log_answers("*"), {API, ACTIVATOR}),
    _key(keys.BUILD_TURNS, {BUILDER}, {API}),
    _key(keys.NAMESPACES_WITH_IMAGES, {BUILDER}),
    _key(keys.built_images("*"), {BUILDER}),
    _key(keys.pulled_images(""), {BUILDER, AUTOSCALER}),
    _key(keys.pulled_images("*"), {BUILDER, AUTOSCALER}),
    _key(keys.REGISTRY_IMAGES, {BUILDER}),
    _key(keys.live_builder("*"), {BUILDER}),
    _key(keys.build_log("*", "*"), {BUILDER}, {API}),
    _key("rq:*", {API, BUILDER}),
    _channel("rq:pubsub:*", {BUILDER}),
)  # fmt: skip

_CONNECTION = {"ping", "select", "client|setname"}
_TABLES = {
    "multi", "exec", "time", "get", "set", "exists", "incr", "hget", "hgetall", "hset", "hdel", "xadd", "xread",
    "xrange", "evalsha", "script|load", "publish", "subscribe", "unsubscribe",
}  # fmt: skip
_PRIMARY = {"info"}
"""To read the role of the server, and its replicas."""
_WRITE = {"wait"}
_LEASE = {"del", "pttl", "pexpire"}
_READ_OBJECTS = {"hkeys", "hmget"}
_WRITE_OBJECTS = {"smembers", "sadd", "srem", "scard", "hlen", "hscan", "xtrim", "bgrewriteaof", "info", "config|get"}
_QUEUE = {
    "info", "client|list", "client|id", "del", "unlink", "expire", "persist", "ttl", "hincrby", "hincrbyfloat",
    "hexists", "hmset", "hmget", "hsetnx", "hlen", "lpush", "rpush", "lpop", "rpop", "blpop", "brpop", "lrem", "lrange",
    "llen", "lmove", "blmove", "lpos", "rpoplpush", "brpoplpush", "sadd", "srem", "smembers", "sismember", "scard",
    "zadd", "zrem", "zrange", "zrevrange", "zrangebyscore", "zremrangebyscore", "zcard", "zcount", "zscore", "setex",
    "setnx", "watch", "unwatch", "discard", "eval", "psubscribe", "punsubscribe", "type",
}  # fmt: skip
"""Commands that RQ uses."""
_BUILD_LOG = {"xrevrange", "expire", "del", "xlen"}

COMMANDS: Mapping[str, frozenset[str]] = {
    API: frozenset(
        _CONNECTION | _PRIMARY | _WRITE | _TABLES | _LEASE | _READ_OBJECTS | _WRITE_OBJECTS | _QUEUE | _BUILD_LOG
    ),
    BUILDER: frozenset(_CONNECTION | _PRIMARY | _WRITE | _TABLES | _LEASE | _READ_OBJECTS | _QUEUE | _BUILD_LOG),
    AUTOSCALER: frozenset(_CONNECTION | _PRIMARY | _WRITE | _TABLES | _LEASE | _READ_OBJECTS | {"sadd", "hexists"}),
    ACTIVATOR: frozenset(_CONNECTION | _PRIMARY | _TABLES),
}
"""Commands of each process. Redis checks their keys and channels, also within scripts."""


def password_hash(password: str) -> str:
    """Hash a password as Redis stores it: SHA-256, which is safe for random passwords of 256 bits."""
    return hashlib.sha256(password.encode()).hexdigest()


def rules(process: str) -> list[str]:
    """Return the permissions of a process's user as arguments of `ACL SETUSER`."""
    readable = sorted(right.pattern for right in RIGHTS if process in right.readers and not right.channel)
    writable = sorted(right.pattern for right in RIGHTS if process in right.writers and not right.channel)
    channels = sorted(right.pattern for right in RIGHTS if process in right.writers and right.channel)
    return [
        *(f"%R~{pattern}" for pattern in readable),
        *(f"~{pattern}" for pattern in writable),
        *(f"&{pattern}" for pattern in channels),
        *(f"+{command}" for command in sorted(COMMANDS[process])),
    ]


def users(passwords: Mapping[str, str]) -> dict[str, list[str]]:
    """Return every user with its rules, including those that disable the default user.

    Args: passwords: by process, including `LOADER`.
    """
    nothing = ["resetkeys", "resetchannels", "-@all"]
    made = {
        process: ["on", f"#{password_hash(passwords[process])}", *nothing, *rules(process)] for process in PROCESSES
    }
    # Redis loads its append-only file with the permissions of the default user: without them it drops every transaction
    # in it (seen with 7.0). Disabled, the user has these permissions and no client can log in as it.
    loader = ["on", f"#{password_hash(passwords[LOADER])}", *nothing, "+client|setname", "+acl|load"]
    default = ["off", "resetpass", "sanitize-payload", "~*", "&*", "+@all"]
    return {"default": default, HEALTH: ["on", "nopass", *nothing, "+ping", "+client|setname"], LOADER: loader, **made}


_NOTHING = ["resetkeys", "resetchannels", "-@all"]


def group_users(passwords: Mapping[str, str]) -> dict[str, list[str]]:
    """Return the additional users of each server of a Redis with replicas.

    Args: passwords: by user; those of `REPLICA` and `SENTINEL` are used.

    Source: https://redis.io/docs/latest/operate/oss_and_stack/management/sentinel/#redis-access-control-list-authentication
    """
    watching = (
        "multi", "slaveof", "ping", "exec", "subscribe", "config|rewrite", "role", "publish", "info", "client|setname",
        "client|kill", "script|kill", "config|set",
    )  # fmt: skip
    allowed = {REPLICA: ["+psync", "+replconf", "+ping"], SENTINEL: ["&*", *(f"+{name}" for name in watching)]}
    return {name: ["on", f"#{password_hash(passwords[name])}", *_NOTHING, *allowed[name]] for name in allowed}


def sentinel_users(passwords: Mapping[str, str], *, forwarded: bool = False) -> dict[str, list[str]]:
    """Return the users of the sentinels: each process may look up the primary.

    Args:
        passwords: by user; those of the processes and of `SENTINEL` are used.
        forwarded: whether only forwarders of the platform's machines reach the sentinels; they look up the primary as
            `HEALTH`.
    """
    # `masters` for redis-py, the others for our own client.
    questions = ("get-master-addr-by-name", "master", "masters")
    asking = ["&*", "+ping", "+client|setname", "+subscribe", *(f"+sentinel|{question}" for question in questions)]
    users_of_processes = {
        process: ["on", f"#{password_hash(passwords[process])}", *_NOTHING, *asking] for process in PROCESSES
    }
    sentinel = ["on", f"#{password_hash(passwords[SENTINEL])}", "~*", "&*", "+@all"]
    health = {HEALTH: ["on", "nopass", *_NOTHING, *asking]} if forwarded else {}
    return {**health, **users_of_processes, SENTINEL: sentinel, "default": ["off", "resetpass", *_NOTHING]}


def acl_file(passwords: Mapping[str, str]) -> str:
    """Return the file for `redis-server --aclfile`."""
    return file_of(users(passwords))


def file_of(chosen: Mapping[str, Iterable[str]]) -> str:
    """Return users as lines of an ACL file."""
    return "".join(f"user {name} {' '.join(rules_of_user)}\n" for name, rules_of_user in chosen.items())


def commands(passwords: Mapping[str, str], more: Mapping[str, Iterable[str]] | None = None) -> list[str]:
    """Return commands that create the same users in an external Redis; its default user is not changed.

    Args: more: additional users.
    """
    own = {name: rules for name, rules in users(passwords).items() if name not in ("default", LOADER)}
    return set_users({**own, **(more or {})})


def set_users(chosen: Mapping[str, Iterable[str]]) -> list[str]:
    """Return commands that create users, or replace all permissions of existing ones."""
    return [f"ACL SETUSER {name} reset {' '.join(rules_of_user)}" for name, rules_of_user in chosen.items()]
