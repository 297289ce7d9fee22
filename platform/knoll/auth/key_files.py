"""The key folders: each process's password for Redis, and the keys that encrypt Secrets; created at the first start.

`FOLDER/PROCESS/` holds only what one process needs, so that each process can be given access to its own folder only.
`FOLDER/redis/users.acl` is the file that Redis reads. A process finds its folder through `KNOLL_KEYS_DIR`.

`python -m knoll.auth.key_files FOLDER` creates what is missing; Compose runs it before everything else, on a manager of
a cluster with `--manager`.
"""

import contextlib
import os
import secrets
import sys
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from urllib.parse import urlsplit

from knoll.redis import encryption
from knoll.values.errors import KnollError

PASSWORD = "redis-password"  # noqa: S105 - the name of a file
SECRETS = "secrets.keys"
"""Keyring of Secrets and of the key that signs tokens."""
GATEWAY = "gateway.keys"
"""Keyring of the certificates that are sent to the activators."""
ACL = Path("redis", "users.acl")
"""Users of Redis, relative to the folder."""
_LOADER = Path("redis", PASSWORD)
HOLDERS: Mapping[str, tuple[str, ...]] = {SECRETS: ("api", "builder", "autoscaler"), GATEWAY: ("api", "activator")}
"""The processes that have each keyring; it is created for the first one and copied to the others."""
_PASSWORD_BYTES = 32


class KeyFilesError(KnollError):
    """The folder of keys cannot be used; the message names the file."""


def prepare(folder: Path) -> dict[str, str]:
    """Create what is missing and keep the rest; returns the passwords by process.

    Raises: KeyFilesError.
    """
    from knoll.auth import redis_acl

    with _naming(folder):
        passwords = _prepared(folder)
        # Readable for all, because Redis may run as another user: it contains only hashes of random passwords.
        _write(folder / ACL, redis_acl.acl_file(passwords).encode(), 0o644)
    return passwords


def _prepared(folder: Path) -> dict[str, str]:
    """Create missing passwords and keyrings; returns the passwords by process."""
    from knoll.auth import redis_acl

    passwords = {process: _password(folder / process / PASSWORD) for process in redis_acl.PROCESSES}
    passwords[redis_acl.LOADER] = _password(folder / _LOADER)
    for name in HOLDERS:
        keep(folder, name, keyring(folder, name) or (encryption.EncryptionKey.fresh(),))
    return passwords


def _with_group(folder: Path, passwords: Mapping[str, str]) -> dict[str, str]:
    from knoll.auth import redis_acl

    users = (redis_acl.REPLICA, redis_acl.SENTINEL)
    return {**passwords, **{user: _password(folder / _LOADER.with_name(group_file(user))) for user in users}}


def prepare_group(folder: Path) -> dict[str, str]:
    """Like `prepare`, with the passwords of replicas and sentinels as well.

    Raises: KeyFilesError.
    """
    passwords = prepare(folder)
    with _naming(folder):
        return _with_group(folder, passwords)


def group_file(user: str) -> str:
    """Return the name of the file with the password of replicas or of sentinels."""
    return f"{user}-password"


def group_password(folder: Path, user: str) -> str:
    """Return the password of replicas or of sentinels. Args: folder: with the files of Redis. Raises: KeyFilesError."""
    path = folder / group_file(user)
    with _naming(path):
        return path.read_text().strip()


def prepare_member(folder: Path) -> dict[str, str]:
    """Like `prepare`, for a manager of a cluster: also the files that its Redis server and its sentinel read.

    The passwords in them can be read by whatever mounts the volume with these files: only Redis and its keeper do.

    Raises: KeyFilesError.
    """
    from knoll.auth import redis_acl

    with _naming(folder):
        passwords = _with_group(folder, _prepared(folder))
    replica, sentinel = passwords[redis_acl.REPLICA], passwords[redis_acl.SENTINEL]
    users = {**redis_acl.users(passwords), **redis_acl.group_users(passwords)}
    files = {
        ACL.name: redis_acl.file_of(users),
        "sentinels.acl": redis_acl.file_of(redis_acl.sentinel_users(passwords, forwarded=True)),
        "server.conf": f"masteruser {redis_acl.REPLICA}\nmasterauth {replica}\n",
        "sentinel.conf": (
            f"sentinel auth-user knoll {redis_acl.SENTINEL}\nsentinel auth-pass knoll {sentinel}\n"
            f"sentinel sentinel-user {redis_acl.SENTINEL}\nsentinel sentinel-pass {sentinel}\n"
        ),
    }
    with _naming(folder):
        for name, content in files.items():
            _write(folder / ACL.with_name(name), content.encode(), 0o644)
    return passwords


def write_group(keys: Path, folder: Path) -> None:
    """Write the files of users for a Redis with replicas and sentinels; see docs/how-to/redis-replicas.md.

    Args:
        keys: folder of the keys.
        folder: gets `servers.acl` and `sentinels.acl`, which contain only hashes, and `.env` with the passwords of
            replicas and sentinels.

    Raises: KeyFilesError.
    """
    from knoll.auth import redis_acl

    passwords = prepare_group(keys)
    users = {**redis_acl.users(passwords), **redis_acl.group_users(passwords)}
    variables = {f"{name.upper()}_PASSWORD": passwords[name] for name in (redis_acl.REPLICA, redis_acl.SENTINEL)}
    with _naming(folder):
        file = folder / ".env"
        present = file.read_text().splitlines() if file.exists() else []
        kept = [line for line in present if line.partition("=")[0] not in variables]
        lines = [*kept, *(f"{name}={value}" for name, value in variables.items())]
        _write(folder / "servers.acl", redis_acl.file_of(users).encode(), 0o644)
        _write(folder / "sentinels.acl", redis_acl.file_of(redis_acl.sentinel_users(passwords)).encode(), 0o644)
        _write(file, "".join(f"{line}\n" for line in lines).encode(), 0o600)


def keyring(folder: Path, name: str) -> tuple[encryption.EncryptionKey, ...]:
    """The keys of `SECRETS` or `GATEWAY`; empty if there are none. Raises: KeyFilesError."""
    for process in HOLDERS[name]:
        path = folder / process / name
        with _naming(path):
            if path.exists():
                return encryption.load(path.read_bytes())
    return ()


def keep(folder: Path, name: str, keys: Sequence[encryption.EncryptionKey]) -> None:
    """Write a keyring for every process that has it. Raises: KeyFilesError."""
    content = encryption.dump(keys)
    for process in HOLDERS[name]:
        path = folder / process / name
        with _naming(path):
            if not path.exists() or path.read_bytes() != content:
                _write(path, content, 0o600)


def _password(path: Path) -> str:
    if path.exists() and (kept := path.read_text().strip()):
        return kept
    made = secrets.token_urlsafe(_PASSWORD_BYTES)
    _write(path, f"{made}\n".encode(), 0o600)
    return made


def _write(path: Path, content: bytes, mode: int) -> None:
    """Write a file atomically, and sync it to disk before it replaces the old one."""
    path.parent.mkdir(parents=True, exist_ok=True, mode=0o755 if path.parent.name == ACL.parent.name else 0o700)
    fresh = path.with_name(f".{path.name}.new")
    fresh.unlink(missing_ok=True)
    with os.fdopen(os.open(fresh, os.O_WRONLY | os.O_CREAT | os.O_EXCL, mode), "wb") as file:
        os.fchmod(file.fileno(), mode)
        file.write(content)
        file.flush()
        os.fsync(file.fileno())
    fresh.replace(path)


@contextlib.contextmanager
def _naming(path: Path) -> Iterator[None]:
    try:
        yield
    except (OSError, ValueError) as error:
        raise KeyFilesError(f"{getattr(error, 'filename', None) or path}: {error}") from error


def main() -> None:
    """Entry point of `python -m knoll.auth.key_files`."""
    arguments = sys.argv[1:]
    make = prepare_member if arguments[1:] == ["--manager"] else prepare
    if len(arguments) not in (1, 2) or (len(arguments) == 2 and make is prepare):
        sys.exit("usage: python -m knoll.auth.key_files FOLDER [--manager]")
    folder = Path(arguments[0])
    try:
        before = (folder / ACL).read_bytes() if (folder / ACL).exists() else b""
        passwords = make(folder)
    except (KnollError, OSError) as error:
        sys.exit(str(error))
    if before and (folder / ACL).read_bytes() != before:
        _load_users(os.environ.get("KNOLL_REDIS_URL", ""), passwords)


def _load_users(url: str, passwords: Mapping[str, str]) -> None:
    """Make a running Redis load the users of this release; a Redis that starts later reads them by itself."""
    from redis import Redis
    from redis.exceptions import AuthenticationError, RedisError
    from redis.exceptions import ConnectionError as RedisConnectionError

    from knoll.auth import redis_acl

    parts = urlsplit(url)
    if not parts.hostname or parts.scheme.endswith("+sentinel"):
        return
    user, password = redis_acl.LOADER, passwords[redis_acl.LOADER]
    try:
        with Redis(parts.hostname, parts.port or 6379, username=user, password=password, socket_timeout=5) as redis:
            redis.acl_load()
    except RedisConnectionError as error:
        if isinstance(error, AuthenticationError):
            print(f"Redis must be restarted to load its users: {error}", file=sys.stderr)  # noqa: T201
        # Redis is not running and will read the file when it starts.
    except (RedisError, OSError) as error:
        print(f"Redis must be restarted to read {ACL}: {error}", file=sys.stderr)  # noqa: T201


if __name__ == "__main__":
    main()
