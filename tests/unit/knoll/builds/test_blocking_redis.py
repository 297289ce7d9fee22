"""The URLs that the client of RQ accepts: those of a Redis without sentinels."""

import pytest

from knoll.builds.blocking_redis import connect_blocking


@pytest.mark.parametrize(
    ("url", "place"),
    [
        ("unix:///run/redis.sock?db=3", {"path": "/run/redis.sock", "db": 3}),
        ("unix://user:secret@/run/redis.sock?db=0", {"path": "/run/redis.sock", "username": "user", "db": 0}),
        ("redis://redis:6379/2", {"host": "redis", "port": 6379, "db": 2}),
        ("redis://redis:6379/2?replicas=1", {"host": "redis", "port": 6379, "db": 2}),
        ("rediss://redis:6380/0?replicas=1&ssl_cert_reqs=none", {"host": "redis", "port": 6380, "db": 0}),
    ],
)
def test_the_client_connects_where_the_url_says(url: str, place: dict[str, object]) -> None:
    options = connect_blocking(url).connection_pool.connection_kwargs
    assert {name: options.get(name) for name in place} == place
