"""The table of rights covers every key and channel, and gives each process no more than it needs."""

import inspect
from fnmatch import fnmatchcase

import pytest

from knoll.auth import redis_acl
from knoll.auth.redis_acl import ACTIVATOR, API, AUTOSCALER, BUILDER, PROCESSES, RIGHTS
from knoll.messages import builds
from knoll.messages.assignments import ASSIGNMENTS, CLAIMS, PREPARATIONS
from knoll.messages.endpoints import ENDPOINTS
from knoll.messages.gateway_objects import GATEWAY_OBJECTS
from knoll.messages.instances import INSTANCES
from knoll.messages.members import MEMBERS
from knoll.messages.nodes import NODES
from knoll.messages.routing import ROUTING
from knoll.messages.scale import SCALE
from knoll.redis import keys
from knoll.values import kinds

TABLES = (
    ROUTING,
    ENDPOINTS,
    SCALE,
    INSTANCES,
    NODES,
    GATEWAY_OBJECTS,
    builds.UNRESOLVED,
    builds.RESOLUTIONS,
    builds.BUILDS,
    ASSIGNMENTS,
    MEMBERS,
    PREPARATIONS,
    CLAIMS,
)
PASSWORDS = {process: f"secret of {process}" for process in (*PROCESSES, "keys")}


def every_key() -> list[str]:
    """One example of each key and channel that `keys.py` can make."""
    examples = {
        "resource": [kind.id for kind in kinds.KINDS],
        "uid": ["6f1c"],
        "name": [],
        "namespace": ["default"],
        "counter": [keys.RESOURCE_VERSION, *(keys.table_version(table) for table in TABLES)],
    }
    made = [
        value
        for name, value in vars(keys).items()
        if name.isupper() and isinstance(value, str) and name != "BUILD_JOBS"  # a queue's name; RQ makes the keys
    ]
    for name, function in inspect.getmembers(keys, inspect.isfunction):
        if name.startswith("table"):
            made += [function(table) for table in TABLES]
        elif name.startswith("lease"):
            made += [function(lease) for lease in ("controllers", "autoscaler")]
        else:
            parameters = list(inspect.signature(function).parameters)
            choices = [examples.get(parameter) or ["x"] for parameter in parameters]
            made += [function(*(choice[0] for choice in choices))] if len(choices) > 1 else map(function, choices[0])
    return made


def rights_of(key: str) -> list[redis_acl.Right]:
    return [right for right in RIGHTS if fnmatchcase(key, right.pattern)]


@pytest.mark.parametrize("key", every_key())
def test_every_key_and_channel_is_granted_once(key: str) -> None:
    assert len(rights_of(key)) == 1, f"{key}: say in redis_rights.py which process may do what with it"


@pytest.mark.parametrize(
    ("key", "writers", "readers"),
    [
        (keys.objects(kinds.SECRET.id), {API}, {BUILDER, AUTOSCALER}),
        (keys.objects(kinds.ROLE_BINDING.id), {API}, {BUILDER}),
        (keys.objects(kinds.POD.id), {API}, {AUTOSCALER}),
        (keys.EVENTS, {API}, {BUILDER, AUTOSCALER}),
        (keys.TOKEN_KEY, {API}, {AUTOSCALER}),
        (keys.table(ROUTING), {API}, {ACTIVATOR}),
        (keys.table(ENDPOINTS), {AUTOSCALER}, {ACTIVATOR}),
        (keys.table(GATEWAY_OBJECTS), {API}, {ACTIVATOR}),
        (keys.table_followers(ROUTING), {API, ACTIVATOR}, set()),
        (keys.lease("autoscaler"), {AUTOSCALER}, {API}),
        (keys.table(NODES), {AUTOSCALER}, {API, BUILDER, ACTIVATOR}),
        ("rq:job:build-1", {API, BUILDER}, set()),
    ],
)
def test_each_process_reaches_what_it_needs(key: str, writers: set[str], readers: set[str]) -> None:
    (right,) = rights_of(key)
    assert right.writers == writers
    assert right.readers == readers


def test_the_data_path_reaches_its_tables_and_nothing_else() -> None:
    reached = [right.pattern for right in RIGHTS if ACTIVATOR in right.writers | right.readers]
    channels = (keys.REPORTS, keys.POKES, keys.REQUEST_LOG_QUESTIONS, keys.request_log_answers("*"))
    assert all(pattern.startswith("knoll:table:") or pattern in (*channels, keys.EPOCH) for pattern in reached)


@pytest.mark.parametrize("process", PROCESSES)
def test_no_process_may_administer_redis(process: str) -> None:
    forbidden = {
        "acl", "config", "config|set", "flushall", "flushdb", "keys", "scan", "shutdown", "debug", "monitor",
        "client|kill", "module", "replicaof", "slaveof", "migrate", "restore", "dump", "function", "swapdb",
    }  # fmt: skip
    assert not redis_acl.COMMANDS[process] & forbidden
    assert not [word for word in redis_acl.rules(process) if word.startswith("+@")]


def test_the_file_of_users_holds_no_password_and_no_open_user() -> None:
    text = redis_acl.acl_file(PASSWORDS)
    assert "secret of" not in text
    users = {line.split()[1]: line.split()[2:] for line in text.splitlines()}
    assert users.keys() == {"default", "health", "keys", *PROCESSES}
    assert users["default"][0] == "off"
    assert {"resetpass", "~*", "+@all"} <= set(users["default"]), "its rights are those that the file is read with"
    assert [word for word in users["health"] if word[0] in "+~%&"] == ["+ping", "+client|setname"]
    assert [word for word in users["keys"] if word[0] in "+~%&"] == ["+client|setname", "+acl|load"]
    for process in PROCESSES:
        assert f"#{redis_acl.password_hash(PASSWORDS[process])}" in users[process]
        assert "nopass" not in users[process]


def test_for_a_foreign_redis_its_default_user_is_left_alone() -> None:
    lines = redis_acl.commands(PASSWORDS)
    assert {line.split()[2] for line in lines} == {"health", *PROCESSES}
    assert all(line.startswith("ACL SETUSER ") and " reset " in line for line in lines)
