"""Commands for the platform's own keys: `knoll secrets`, `knoll redis-acl`."""

import asyncio
from pathlib import Path

import click

from knoll.auth import key_files, reencryption
from knoll.auth import redis_acl as redis_rights
from knoll.auth.join_tokens import NAMESPACE
from knoll.cli.state_folder import data_option
from knoll.cluster.members import members_of
from knoll.messages.nodes import NODES, Node
from knoll.process.settings import CommonSettings
from knoll.redis import encryption
from knoll.redis.client import RedisClient, connected
from knoll.store.redis_store import RedisStore
from knoll.tables.redis_tables import RedisTable
from knoll.values import kinds
from knoll.values.errors import BadRequestError, ConflictError

_FOLDER = Path("state", "keys")


def folder_of(data: Path) -> Path:
    """Return the folder of the keys of a `knoll up`."""
    return data.resolve() / _FOLDER


def environment_of(keys: Path, process: str, redis_url: str, *, users: bool) -> dict[str, str]:
    """Return the settings of keys and Redis for one process.

    Args: users: whether it logs in as the Redis user of its name.
    """
    own = {"KNOLL_KEYS_DIR": str(keys / process)} if process in redis_rights.PROCESSES else {}
    return {**own, "KNOLL_REDIS_URL": as_user(redis_url, process) if users else redis_url}


def as_user(redis_url: str, user: str) -> str:
    """Add a user to a Redis URL; the process reads the password. Raises: BadRequestError: the URL has a user."""
    scheme, separator, rest = redis_url.partition("://")
    if not separator or "@" in rest.partition("/")[0]:
        raise BadRequestError(
            f"{scheme}://…: pass the URL of Redis without a user; each process logs in as its own user"
        )
    return f"{scheme}://{user}@{rest}"


keys_option = click.option(
    "--keys",
    envvar="KNOLL_ALL_KEYS_DIR",
    type=click.Path(file_okay=False, path_type=Path),
    help="Folder with the keys of all processes.  [default: that of `knoll up` with --data]",
)


@click.group()
def secrets() -> None:
    """Manage the keys that encrypt Secrets in Redis."""


@secrets.command()
@data_option
@keys_option
@click.option("--redis-url", envvar="KNOLL_REDIS_URL", help="URL of Redis.  [default: that of `knoll up` with --data]")
def rotate(data: Path, keys: Path | None, redis_url: str | None) -> None:
    """Create a new key and encrypt all Secrets with it, without a restart of the platform.

    The previous key is kept for writes in progress until the next rotation; older keys are deleted.
    """
    folder = keys or folder_of(data)
    settings = _settings(data, folder, redis_url)
    changed = asyncio.run(_rotate(folder, settings))
    click.echo(f"new key {settings.keyring.current}: {changed} values re-encrypted")


@secrets.command("discard-unreadable")
@data_option
@keys_option
@click.option("--redis-url", envvar="KNOLL_REDIS_URL", help="URL of Redis.  [default: that of `knoll up` with --data]")
def discard_unreadable(data: Path, keys: Path | None, redis_url: str | None) -> None:
    """Delete the Secrets that cannot be decrypted because their keys are lost.

    Listing Secrets fails until then. If the key that signs tokens is among them, all tokens become invalid.
    """
    settings = _settings(data, keys or folder_of(data), redis_url)
    discarded = asyncio.run(_discard(settings))
    for each in discarded:
        click.echo(f"deleted {each}")
    click.echo(f"{len(discarded)} values could not be decrypted")


def _settings(data: Path, folder: Path, redis_url: str | None) -> CommonSettings:
    url = redis_url or as_user(f"unix://{(data / 'redis.sock').resolve()}?db=0", redis_rights.API)
    return CommonSettings(redis_url=url, keys_dir=folder / redis_rights.API).logged_in()


async def _discard(settings: CommonSettings) -> list[str]:
    async with connected(settings.redis_url, "knoll-secrets") as redis:
        return await reencryption.discard_unreadable(redis, settings.keyring)


async def _machines(redis: RedisClient) -> set[str]:
    """Return the names of the machines of a cluster, also of those that are switched off and do not report."""
    _, reporting = await RedisTable(redis, NODES, Node).snapshot()
    accounts = await RedisStore(redis).list(kinds.SERVICE_ACCOUNT.id, NAMESPACE)
    return {*reporting, *members_of(accounts.items)}


async def _rotate(folder: Path, settings: CommonSettings) -> int:
    async with connected(settings.redis_url, "knoll-secrets") as redis:
        nodes = await _machines(redis)
    if len(nodes) > 1:
        # They have copies of the keys, and could not decrypt what is encrypted with a new one.
        raise ConflictError(
            f"the platform runs on several machines ({', '.join(sorted(nodes))}), whose keys this command does not "
            "change: remove the others (`knoll node rm`), rotate, and let them join again"
        )
    for name in key_files.HOLDERS:
        before = key_files.keyring(folder, name)[:1]
        fresh = encryption.EncryptionKey.fresh()
        # Every process can decrypt with the new key before any process encrypts with it.
        key_files.keep(folder, name, (*before, fresh))
        key_files.keep(folder, name, (fresh, *before))
    async with connected(settings.redis_url, "knoll-secrets") as redis:
        return await reencryption.reseal(redis, settings.keyring)


@click.command("redis-acl")
@data_option
@keys_option
@click.option("--servers", is_flag=True, help="Print them for each server of a Redis with replicas and sentinels.")
@click.option("--sentinels", is_flag=True, help="Print them for each sentinel.")
@click.option(
    "--folder",
    type=click.Path(file_okay=False, path_type=Path),
    help="Write servers.acl, sentinels.acl and .env there, for docs/how-to/redis-replicas/compose.yaml.",
)
def redis_acl(data: Path, keys: Path | None, servers: bool, sentinels: bool, folder: Path | None) -> None:
    """Print the commands that create Knoll's users in your own Redis, and store their passwords with the keys.

    For Redis 7 or newer: `knoll redis-acl | redis-cli -u redis://ADMINISTRATOR@HOST`, then `knoll up --redis-users`.
    """
    all_keys = keys or folder_of(data)
    if folder is not None:
        key_files.write_group(all_keys, folder)
        return
    if not (servers or sentinels):
        lines = redis_rights.commands(key_files.prepare(all_keys))
    else:
        passwords = key_files.prepare_group(all_keys)
        lines = redis_rights.commands(passwords, redis_rights.group_users(passwords)) if servers else []
        lines += redis_rights.set_users(redis_rights.sentinel_users(passwords)) if sentinels else []
    for line in lines:
        click.echo(line)
