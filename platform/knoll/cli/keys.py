"""Commands about the platform's own keys: `knoll secrets rotate`, `knoll redis-acl`."""

import asyncio
from pathlib import Path

import click

from knoll.auth import key_files, reencryption
from knoll.auth import redis_acl as redis_rights
from knoll.cli.state_folder import data_option
from knoll.process.settings import CommonSettings
from knoll.redis import encryption
from knoll.redis.client import connected
from knoll.values.errors import BadRequestError

_FOLDER = Path("state", "keys")


def folder_of(data: Path) -> Path:
    """Where a platform that `knoll up` runs keeps its keys."""
    return data.resolve() / _FOLDER


def environment_of(keys: Path, process: str, redis_url: str, *, users: bool) -> dict[str, str]:
    """What one process is told of keys and Redis.

    Args: users: whether it logs in as the user of its name.
    """
    own = {"KNOLL_KEYS_DIR": str(keys / process)} if process in redis_rights.PROCESSES else {}
    return {**own, "KNOLL_REDIS_URL": as_user(redis_url, process) if users else redis_url}


def as_user(redis_url: str, user: str) -> str:
    """A Redis URL with a user, whose password the process reads. Raises: BadRequestError: it has one already."""
    scheme, separator, rest = redis_url.partition("://")
    if not separator or "@" in rest.partition("/")[0]:
        raise BadRequestError(f"{scheme}://…: give the URL of Redis without a user: each process logs in as its own")
    return f"{scheme}://{user}@{rest}"


keys_option = click.option(
    "--keys",
    envvar="KNOLL_ALL_KEYS_DIR",
    type=click.Path(file_okay=False, path_type=Path),
    help="Folder of all processes' keys; by default that of `knoll up` with --data.",
)


@click.group()
def secrets() -> None:
    """The keys that Secrets are encrypted with in Redis."""


@secrets.command()
@data_option
@keys_option
@click.option("--redis-url", envvar="KNOLL_REDIS_URL", help="Redis; by default that of `knoll up` with --data.")
def rotate(data: Path, keys: Path | None, redis_url: str | None) -> None:
    """Make a new key and encrypt all Secrets with it. The platform goes on meanwhile and needs no restart.

    The key before it is kept, for what is under way, until the next rotation; older ones are deleted.
    """
    folder = keys or folder_of(data)
    settings = _settings(data, folder, redis_url)
    changed = asyncio.run(_rotate(folder, settings))
    click.echo(f"new key {settings.keyring.current}: {changed} values encrypted again")


@secrets.command("discard-unreadable")
@data_option
@keys_option
@click.option("--redis-url", envvar="KNOLL_REDIS_URL", help="Redis; by default that of `knoll up` with --data.")
def discard_unreadable(data: Path, keys: Path | None, redis_url: str | None) -> None:
    """Delete the Secrets that cannot be decrypted, when the keys they were encrypted with are lost for good.

    While there is one, listing Secrets fails. If the key that signs tokens is among them, all tokens end.
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


async def _rotate(folder: Path, settings: CommonSettings) -> int:
    for name in key_files.HOLDERS:
        before = key_files.keyring(folder, name)[:1]
        fresh = encryption.Key.fresh()
        # Every process can read what is sealed with the new key before one of them uses it.
        key_files.keep(folder, name, (*before, fresh))
        key_files.keep(folder, name, (fresh, *before))
    async with connected(settings.redis_url, "knoll-secrets") as redis:
        return await reencryption.reseal(redis, settings.keyring)


@click.command("redis-acl")
@data_option
@keys_option
def redis_acl(data: Path, keys: Path | None) -> None:
    """Print the commands that make Knoll's users in a Redis of your own, and keep their passwords with the keys.

    For Redis 7 or newer: `knoll redis-acl | redis-cli -u redis://ADMINISTRATOR@HOST`, then `knoll up --redis-users`.
    """
    passwords = key_files.prepare(keys or folder_of(data))
    for line in redis_rights.commands(passwords):
        click.echo(line)
