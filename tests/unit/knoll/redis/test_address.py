"""The URL of Redis: every form that redis-py accepts for the same Redis."""

from typing import Any

import pytest
from redis.connection import parse_url

from knoll.redis.address import Address, parse, tls_context


@pytest.mark.parametrize(
    "url",
    [
        "redis://127.0.0.1:6379/0",
        "redis://redis",
        "redis://redis:7000/3",
        "redis://redis/?db=4",
        "redis://user:p%40ss%2Fword@redis:6379/0",
        "redis://:secret@redis",
        "redis://api@redis:6379/0",
        "redis://[::1]:6380/1",
        "redis:///2",
        "redis://redis?username=u&password=p",
        "unix:///run/redis.sock",
        "unix:///run/redis.sock?db=2",
        "unix://user:word@/run/redis.sock?db=0",
        "unix:///a%20folder/redis.sock",
        "rediss://redis:6380/0",
    ],
)
def test_a_url_means_what_it_means_to_redis_py(url: str) -> None:
    expected: dict[str, Any] = parse_url(url)  # type: ignore[no-untyped-call]
    address = parse(url)
    assert address.host == expected.get("host", "localhost")
    assert address.port == expected.get("port", 6379)
    assert address.path == expected.get("path", "")
    assert address.user == expected.get("username", "")
    assert address.password == expected.get("password", "")
    assert address.database == int(expected.get("db", 0))
    assert (address.tls is not None) is url.startswith("rediss://")


@pytest.mark.parametrize(
    "url", ["http://redis", "redis://redis/x", "redis://redis:port", "redis", "redis://u:hush@r:x/"]
)
def test_an_invalid_url_is_refused_without_its_password(url: str) -> None:
    with pytest.raises(ValueError, match="Redis") as refused:
        parse(url)
    assert "hush" not in str(refused.value)


def test_a_tls_option_that_is_not_understood_is_refused_and_others_are_ignored() -> None:
    assert parse("redis://redis?socket_keepalive=true&health_check_interval=30") == Address("redis")
    assert parse("rediss://redis?ssl_cert_reqs=none").tls == {"ssl_cert_reqs": "none"}
    with pytest.raises(ValueError, match="ssl_min_version is not supported"):
        parse("rediss://redis?ssl_min_version=TLSv1_3")


def test_tls_checks_certificate_and_host_unless_told_otherwise() -> None:
    assert tls_context({}).check_hostname
    assert not tls_context({"ssl_check_hostname": "false"}).check_hostname
    assert tls_context({"ssl_check_hostname": "false"}).verify_mode.name == "CERT_REQUIRED"
    assert tls_context({"ssl_cert_reqs": "none"}).verify_mode.name == "CERT_NONE"
    with pytest.raises(ValueError, match="ssl_cert_reqs"):
        tls_context({"ssl_cert_reqs": "maybe"})


@pytest.mark.parametrize(
    ("address", "login"),
    [
        (Address(), ()),
        (Address(user="api", password="p"), ("AUTH", "api", "p")),
        (Address(password="p"), ("AUTH", "default", "p")),
        (Address(user="health"), ("AUTH", "health", "")),
    ],
)
def test_it_logs_in_with_what_the_url_has(address: Address, login: tuple[str, ...]) -> None:
    assert address.login() == login


def test_a_password_is_not_printed() -> None:
    address = parse("redis://api:hush@redis:6379/0")
    assert "hush" not in repr(address) + str(address)


def test_sentinels_and_the_name_of_the_primary_are_read() -> None:
    address = parse("redis+sentinel://api:p%40ss@first,second:7000/3?master=knoll&replicas=2")
    assert [(each.host, each.port) for each in address.sentinels] == [("first", 26379), ("second", 7000)]
    assert (address.primary_name, address.replicas, address.database) == ("knoll", 2, 3)
    assert (address.user, address.password) == ("api", "p@ss")
    assert all(each.login() == () and not each.database for each in address.sentinels)
    primary = address.at("10.0.0.7", 6380)
    assert (str(primary), primary.login(), primary.database) == ("10.0.0.7:6380", ("AUTH", "api", "p@ss"), 3)


@pytest.mark.parametrize(
    ("options", "login"),
    [
        ("sentinel_users=yes", ("AUTH", "api", "p")),
        ("sentinel_username=watch&sentinel_password=w", ("AUTH", "watch", "w")),
        ("sentinel_password=w", ("AUTH", "default", "w")),
        ("sentinel_users=no", ()),
    ],
)
def test_sentinels_have_a_login_of_their_own(options: str, login: tuple[str, ...]) -> None:
    address = parse(f"rediss+sentinel://api:p@one/0?master=knoll&{options}&ssl_cert_reqs=none")
    (sentinel,) = address.sentinels
    assert sentinel.login() == login
    assert sentinel.tls == address.tls == {"ssl_cert_reqs": "none"}


@pytest.mark.parametrize(
    ("url", "replicas", "replicated"),
    [
        ("redis://redis/0", 0, False),
        ("redis://redis/0?replicas=0", 0, False),
        ("redis://redis/0?replicas=1", 1, True),
        ("redis://redis/0?replicas=auto", 0, True),
        ("redis+sentinel://one/0?master=knoll&replicas=auto", 0, True),
        ("redis+sentinel://one/0?master=knoll", 1, True),
        ("redis+sentinel://one/0?master=knoll&replicas=0", 0, True),
    ],
)
def test_writes_wait_for_one_replica_with_sentinels_and_for_none_without(
    url: str, replicas: int, replicated: bool
) -> None:
    address = parse(url)
    assert (address.replicas, address.is_replicated) == (replicas, replicated)


@pytest.mark.parametrize(
    ("url", "problem"),
    [
        ("redis+sentinel://one/0", "master=NAME"),
        ("redis+sentinel:///0?master=knoll", "names no sentinel"),
        ("redis+sentinel://one:x/0?master=knoll", "Port"),
        ("redis+sentinel://one/0?master=knoll&replicas=-1", "must not be negative"),
        ("unix+sentinel://one/0?master=knoll", "unix"),
    ],
)
def test_an_invalid_url_of_sentinels_is_refused(url: str, problem: str) -> None:
    with pytest.raises(ValueError, match=problem):
        parse(url)
