"""Each error that Redis replies, and the error that our callers get."""

import pytest

from knoll.redis.reply_errors import NotPrimaryError, RedisReplyError, UnknownScriptError, translated
from knoll.values.errors import StoreForbiddenError, StoreFullError, StoreUnavailableError


@pytest.mark.parametrize(
    ("message", "type_"),
    [
        ("LOADING Redis is loading the dataset in memory", StoreUnavailableError),
        ("READONLY You can't write against a read only replica.", NotPrimaryError),
        ("STALEEPOCH another server became the primary", NotPrimaryError),
        ("STALELEASE another process leads", StoreUnavailableError),
        ("NOREPLICAS Not enough good replicas to write.", StoreUnavailableError),
        ("NOAUTH Authentication required.", StoreUnavailableError),
        ("WRONGPASS invalid username-password pair or user is disabled.", StoreUnavailableError),
        ("BUSY Redis is busy running a script.", StoreUnavailableError),
        ("ERR max number of clients reached", StoreUnavailableError),
        ("ERR AUTH <password> called without any password configured", StoreUnavailableError),
        ("OOM command not allowed when used memory > 'maxmemory'.", StoreFullError),
        ("ERR Error running script (call to f_1): @user_script:5: -OOM command not allowed when used", StoreFullError),
        ("MISCONF Errors writing to the AOF file: No space left on device", StoreFullError),
        ("NOPERM User activator has no permissions to run the 'keys' command", StoreForbiddenError),
        ("ERR ACL failure in script: User activator has no permissions to access", StoreForbiddenError),
        ("ERR Error running script: @user_script:1: -NOPERM this user", StoreForbiddenError),
        ("ERR The user executing the script can't run this command or subcommand script: 97afe6", StoreForbiddenError),
        ("NOSCRIPT No matching script.", UnknownScriptError),
        ("WRONGTYPE Operation against a key holding the wrong kind of value", RedisReplyError),
        ("ERR unknown command 'X'", RedisReplyError),
    ],
)
def test_an_error_is_translated(message: str, type_: type[Exception]) -> None:
    assert type(translated(message)) is type_
