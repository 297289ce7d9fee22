"""The URL of Redis, taken apart, and the TLS context that it asks for.

The forms are those of redis-py, which reads the same URL where RQ needs it: `redis://`, `rediss://` and `unix://`, with
a user, a password, a database and TLS options. Options that tune redis-py itself have no effect here.

Source: https://redis.readthedocs.io/en/stable/connections.html#redis.Redis.from_url
"""

import ssl
from collections.abc import Mapping
from dataclasses import dataclass, field
from urllib.parse import parse_qs, unquote, urlsplit

DEFAULT_HOST, DEFAULT_PORT = "localhost", 6379
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

    def __str__(self) -> str:
        return self.path or f"{self.host}:{self.port}"

    def login(self) -> tuple[str, ...]:
        """Return the arguments of HELLO that log in; none without a user and a password."""
        if not (self.user or self.password):
            return ()
        return ("AUTH", self.user or "default", self.password)


def parse(url: str) -> Address:
    """Parse a URL. Raises: ValueError: it is none of the forms above; the message does not repeat its password."""
    parts = urlsplit(url)
    options = {name: values[0] for name, values in parse_qs(parts.query, keep_blank_values=True).items()}
    if parts.scheme not in ("redis", "rediss", "unix"):
        raise ValueError(f"{parts.scheme}://…: Redis is reached by redis://, rediss:// or unix://")
    unix = parts.scheme == "unix"
    try:
        database = options.get("db") or ("" if unix else parts.path.strip("/")) or "0"
        return Address(
            host=unquote(parts.hostname or "") or options.get("host") or DEFAULT_HOST,
            port=parts.port or int(options.get("port") or DEFAULT_PORT),
            path=unquote(parts.path) if unix else "",
            user=unquote(parts.username or "") or options.get("username") or "",
            password=unquote(parts.password or "") or options.get("password") or "",
            database=int(database),
            tls=_tls_options(options) if parts.scheme == "rediss" else None,
        )
    except ValueError as error:
        raise ValueError(f"the URL of Redis is invalid: {error}") from None


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
