"""Translates the errors that Redis replies into ours. Pure.

The first word of a reply is its code. An error of a command within a script has it too, but before Redis 7 further back
in the message, so the message is searched as well.
"""

from knoll.values.errors import StoreForbiddenError, StoreFullError, StoreUnavailableError

NOT_PRIMARY = ("READONLY", "STALEEPOCH")
"""Replies of a server that has become a replica, or was promoted since this client connected; nothing was written."""
STALE_LEASE = "STALELEASE"
"""Reply to a write of a leader whose lease has ended: nothing was written."""
_UNAVAILABLE_CODES = {
    "LOADING", "NOREPLICAS", "MASTERDOWN", "CLUSTERDOWN", "TRYAGAIN", "BUSY", "NOAUTH", "WRONGPASS",
}  # fmt: skip
"""Redis cannot carry out the command now, or lets this process in only once its users are up to date."""
_FORBIDDEN_TEXTS = ("NOPERM", "ACL failure in script", "The user executing the script can't")
_UNAVAILABLE_TEXTS = ("ERR max number of clients reached", "ERR invalid password", "ERR AUTH ", "ERR Client sent AUTH")


class RedisReplyError(Exception):
    """Redis did not understand a command, or a key holds another type: a bug."""


class UnknownScriptError(RedisReplyError):
    """Redis does not have the script of an EVALSHA; nothing was carried out."""


class NotPrimaryError(StoreUnavailableError):
    """This server is not the primary of this client's epoch; nothing was written."""


def translated(message: str) -> Exception:
    """Return the exception that a reply becomes.

    Returns: StoreUnavailableError, StoreFullError, StoreForbiddenError or RedisReplyError.
    """
    code = message.partition(" ")[0]
    if code == "NOSCRIPT":
        return UnknownScriptError(message)
    if code == "OOM" or "OOM command not allowed" in message:
        return StoreFullError(
            "Redis refuses writes: it reached its memory limit (maxmemory; KNOLL_REDIS_MEMORY with Compose): delete "
            "objects, or raise the limit"
        )
    if code == "NOPERM":
        return StoreForbiddenError(
            f"Redis does not permit this to the user of this process: {message.removeprefix('NOPERM ')}; `knoll up`, "
            "Compose and `knoll redis-acl` create the users"
        )
    if any(text in message for text in _FORBIDDEN_TEXTS):
        return StoreForbiddenError(f"Redis does not permit this to the user of this process: {message}")
    # Writes are refused while the disk is full or broken, or replicas are missing.
    if "MISCONF" in message:
        return StoreFullError(f"Redis refuses writes because it cannot write its file: {message}")
    if "NOREPLICAS" in message:
        return StoreUnavailableError(f"Redis is unavailable: it refuses writes: {message}")
    if any(text in message for text in NOT_PRIMARY):
        return NotPrimaryError(f"Redis is unavailable: {message}")
    if code in _UNAVAILABLE_CODES or code == STALE_LEASE or message.startswith(_UNAVAILABLE_TEXTS):
        return StoreUnavailableError(f"Redis is unavailable: {message}")
    return RedisReplyError(message)
