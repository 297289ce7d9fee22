"""Parses the URL of Redis, and creates the TLS context for it.

The URL of a single server has the forms of redis-py, which reads the same URL for RQ: `redis://`, `rediss://` and
`unix://`, with a user, a password, a database and TLS options. Options that tune redis-py itself have no effect here.

`redis+sentinel://[user@]host1[:26379],host2,host3/0?master=NAME` and `rediss+sentinel://` name the sentinels, which
know the primary. Options of a Redis with replicas:

- `replicas`: how many replicas must have each write before it is acknowledged; 1 with sentinels, otherwise 0. It can be
  set in any URL, for example of a managed Redis whose one address always leads to the primary. `replicas=auto`: one
  replica if the server has `min-replicas-to-write`, none as long as it has not.
- `sentinel_username` and `sentinel_password`: the login for the sentinels. `sentinel_users=yes`: the sentinels have the
  same users as Redis. Without these options no login is sent to them.

Source: https://redis.readthedocs.io/en/stable/connections.html#redis.Redis.from_url
"""

import dataclasses
import ssl
from collections.abc import Mapping
from dataclasses import dataclass, field
from urllib.parse import parse_qs, unquote, urlsplit, urlunsplit

DEFAULT_HOST, DEFAULT_PORT, SENTINEL_PORT = "localhost", 6379, 26379
_SENTINEL = "+sentinel"
_TLS_FILES = ("ssl_ca_certs", "ssl_ca_path", "ssl_certfile", "ssl_keyfile", "ssl_password")
_TLS_OPTIONS = {*_TLS_FILES, "ssl_cert_reqs", "ssl_check_hostname"}
_REQUIREMENTS = {"none": ssl.CERT_NONE, "optional": ssl.CERT_OPTIONAL, "required": ssl.CERT_REQUIRED}
_FALSE = {"0", "f", "false", "n", "no", ""}


@dataclass(frozen=True, slots=True)
class Address:
    """Where Redis is, and how to log in."""

    host: str = DEFAULT_HOST
    port: int = DEFAULT_PORT
    path: str = ""
    """Path of a Unix socket; empty with TCP."""
    user: str = ""
    password: str = field(default="", repr=False)
    database: int = 0
    tls: Mapping[str, str] | None = None
    """TLS options of the URL, by name; None without TLS."""
    sentinels: tuple["Address", ...] = ()
    """Sentinels, which know the primary's host and port; with them, `host` and `port` are not used."""
    primary_name: str = ""
    """Name by which sentinels know the primary."""
    replicas: int = 0
    """How many replicas must have a write before it is acknowledged."""
    asks_for_replicas: bool = False
    """Whether the server's own setting says how many; `replicas` is 0 then until the server was asked."""

    def __str__(self) -> str:
        return self.path or f"{self.host}:{self.port}"

    @property
    def is_replicated(self) -> bool:
        """Whether another server may become the primary."""
        return bool(self.sentinels or self.replicas or self.asks_for_replicas)

    def at(self, host: str, port: int) -> "Address":
        """Return the same login at another host and port."""
        return dataclasses.replace(self, host=host, port=port)

    def login(self) -> tuple[str, ...]:
        """Return the arguments of HELLO that log in; none without a user and a password."""
        if not (self.user or self.password):
            return ()
        return ("AUTH", self.user or "default", self.password)


def parse(url: str) -> Address:
    """Parse a URL. Raises: ValueError: it is none of the forms above; the message does not repeat its password."""
    scheme = url.partition("://")[0]
    if scheme.removesuffix(_SENTINEL) not in ("redis", "rediss") and scheme != "unix":
        raise ValueError(
            f"{scheme}://…: Redis is reached by redis://, rediss:// or unix://, and with sentinels by "
            "redis+sentinel:// or rediss+sentinel://"
        )
    try:
        return _behind_sentinels(url) if scheme.endswith(_SENTINEL) else _single(url)
    except ValueError as error:
        raise ValueError(f"the URL of Redis is invalid: {error}") from None


def _single(url: str) -> Address:
    parts = urlsplit(url)
    options = _options(parts.query)
    unix = parts.scheme == "unix"
    return Address(
        host=unquote(parts.hostname or "") or options.get("host") or DEFAULT_HOST,
        port=parts.port or int(options.get("port") or DEFAULT_PORT),
        path=unquote(parts.path) if unix else "",
        user=unquote(parts.username or "") or options.get("username") or "",
        password=unquote(parts.password or "") or options.get("password") or "",
        database=int(options.get("db") or ("" if unix else parts.path.strip("/")) or "0"),
        tls=_tls_options(options) if parts.scheme == "rediss" else None,
        replicas=_replicas(options, 0),
        asks_for_replicas=_asks(options),
    )


def _behind_sentinels(url: str) -> Address:
    parts = urlsplit(url)
    options = _options(parts.query)
    login, _, hosts = parts.netloc.rpartition("@")
    scheme = parts.scheme.removesuffix(_SENTINEL)
    # Everything except the hosts has the same meaning as with one server.
    address = _single(urlunsplit((scheme, f"{login}@" if login else "", parts.path, parts.query, "")))
    if not (name := options.get("master")):
        raise ValueError("`master=NAME` is missing: the name by which sentinels know the primary")
    sentinel = dataclasses.replace(address, database=0, replicas=0, asks_for_replicas=False)
    if options.get("sentinel_users", "").lower() in _FALSE:
        user, password = options.get("sentinel_username") or "", options.get("sentinel_password") or ""
        sentinel = dataclasses.replace(sentinel, user=user, password=password)
    places = [urlsplit(f"//{place}") for place in hosts.split(",") if place]
    if not places:
        raise ValueError("it names no sentinel")
    return dataclasses.replace(
        address,
        sentinels=tuple(
            sentinel.at(unquote(place.hostname or DEFAULT_HOST), place.port or SENTINEL_PORT) for place in places
        ),
        primary_name=name,
        replicas=_replicas(options, 0 if address.asks_for_replicas else 1),
    )


def _options(query: str) -> dict[str, str]:
    return {name: values[0] for name, values in parse_qs(query, keep_blank_values=True).items()}


def _asks(options: Mapping[str, str]) -> bool:
    return options.get("replicas") == "auto"


def _replicas(options: Mapping[str, str], default: int) -> int:
    count = 0 if _asks(options) else int(options.get("replicas") or default)
    if count < 0:
        raise ValueError(f"replicas={count}: it must not be negative")
    return count


def tls_context(options: Mapping[str, str]) -> ssl.SSLContext:
    """Create the context of a TLS connection. Raises: OSError: a file cannot be read. ValueError: an invalid option."""
    context = ssl.create_default_context(cafile=options.get("ssl_ca_certs"), capath=options.get("ssl_ca_path"))
    required = options.get("ssl_cert_reqs", "required").lower()
    if required not in _REQUIREMENTS:
        raise ValueError(f"ssl_cert_reqs: {required} is not one of {', '.join(_REQUIREMENTS)}")
    checks_host = options.get("ssl_check_hostname", "true").lower() not in _FALSE
    context.check_hostname = checks_host and required == "required"
    context.verify_mode = _REQUIREMENTS[required]
    if certificate := options.get("ssl_certfile"):
        context.load_cert_chain(certificate, options.get("ssl_keyfile"), options.get("ssl_password"))
    return context


def _tls_options(options: Mapping[str, str]) -> Mapping[str, str]:
    chosen = {name: value for name, value in options.items() if name.startswith("ssl_")}
    # One that is not understood may be there to make the connection safer.
    if unknown := sorted(chosen.keys() - _TLS_OPTIONS):
        raise ValueError(f"{unknown[0]} is not supported; TLS options are {', '.join(sorted(_TLS_OPTIONS))}")
    return chosen
