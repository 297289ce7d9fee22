"""The Redis client for RQ, for every URL of `knoll.redis.address`, and confirmation of its writes by replicas.

By default redis-py retries failed calls, with sentinels for ten seconds at each unreachable one; here it does not.

Source: https://redis.readthedocs.io/en/stable/connections.html#sentinel-client
"""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any
from urllib.parse import parse_qsl, urlencode

from redis import Redis
from redis.backoff import NoBackoff
from redis.exceptions import ConnectionError as RedisConnectionError
from redis.exceptions import ResponseError
from redis.exceptions import TimeoutError as RedisTimeoutError
from redis.retry import Retry
from redis.sentinel import Sentinel

from knoll.redis import keys
from knoll.redis.address import Address, parse
from knoll.redis.reply_errors import RedisReplyError, translated
from knoll.values.errors import StoreUnavailableError

SENTINEL_SECONDS = 0.5
CONNECT_SECONDS = 1.0
WAIT_MILLISECONDS = 500
WORKER_SECONDS = 25
"""Lifetime of a worker's entry with sentinels: RQ derives from it how long a worker waits for a frozen server."""
_FALSE = {"0", "f", "false", "n", "no", ""}


def connect_blocking(url: str, seconds: float | None = None) -> Redis:
    """Return a client; it connects when it is first used.

    Args: seconds: how long a reply may take with sentinels; None leaves it to RQ.
    """
    address = parse(url)
    if not address.sentinels:
        return Redis.from_url(_without_own_options(url))
    sentinels = Sentinel(  # type: ignore[no-untyped-call]
        [(sentinel.host, sentinel.port) for sentinel in address.sentinels],
        sentinel_kwargs={
            **_login(address.sentinels[0]),
            "socket_timeout": SENTINEL_SECONDS,
            "socket_connect_timeout": SENTINEL_SECONDS,
            "retry": Retry(NoBackoff(), 0),
        },
    )
    options: dict[str, Any] = {
        **_login(address),
        "db": address.database,
        "socket_connect_timeout": CONNECT_SECONDS,
        "retry": Retry(NoBackoff(), 0),
    }
    if seconds is not None:
        options["socket_timeout"] = seconds
    client: Redis = sentinels.master_for(address.primary_name, **options)  # type: ignore[no-untyped-call]
    return client


def _without_own_options(url: str) -> str:
    """Return a URL without the options that redis-py does not accept."""
    where, mark, query = url.partition("?")  # not urlunsplit: it drops the slashes of `unix:///`
    options = [(name, value) for name, value in parse_qsl(query, keep_blank_values=True) if name != "replicas"]
    return f"{where}{mark}{urlencode(options)}"


def _login(address: Address) -> dict[str, Any]:
    login: dict[str, Any] = {"username": address.user or None, "password": address.password or None}
    if address.tls is not None:
        login |= {"ssl": True, **address.tls}
        if "ssl_check_hostname" in login:
            login["ssl_check_hostname"] = login["ssl_check_hostname"].lower() not in _FALSE
    return login


@contextmanager
def confirmed(redis: Redis, replicas: int | None) -> Iterator[None]:
    """Make sure at the end of the block that replicas have its writes.

    Args: replicas: how many replicas; with 0 nothing is checked. None: one if Redis has `min-replicas-to-write`.

    Raises: StoreUnavailableError: Redis did not answer, or replicas may lack the writes, which may have happened.
    """
    try:
        before: Any = redis.info("replication") if replicas is None or replicas else {}
        if replicas is None:
            replicas = int("min_slaves_good_slaves" in before)
        yield
        if not replicas:
            return
        with redis.pipeline(transaction=False) as untyped:
            pipe: Any = untyped
            # WAIT covers only writes of its own connection; the block may have used another. This write is the last.
            pipe.set(keys.BUILD_JOBS_CONFIRMED, "")
            pipe.execute_command("WAIT", replicas, WAIT_MILLISECONDS)
            pipe.info("replication")
            _, count, replication = pipe.execute()
    except (RedisConnectionError, RedisTimeoutError) as error:
        raise StoreUnavailableError(f"the job queue does not respond: {error}") from error
    except ResponseError as error:
        meaning = translated(str(error))
        raise (error if isinstance(meaning, RedisReplyError) else meaning) from error
    if count < replicas or replication["master_replid"] != before["master_replid"]:
        raise StoreUnavailableError(f"the job queue is unavailable: {count} of {replicas} replicas confirmed a job")
