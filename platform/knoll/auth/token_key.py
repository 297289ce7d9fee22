"""The key that signs the tokens of the whole platform. It is stored in Redis, encrypted with the platform's keyring."""

from redis.asyncio import Redis
from redis.exceptions import NoPermissionError

from knoll.auth.tokens import SigningKey
from knoll.redis import keys
from knoll.redis.client import translate_errors
from knoll.redis.encryption import PLAIN, TOKEN_KEY_SUBJECT, Keyring
from knoll.values.errors import StoreUnavailableError


async def shared_key(redis: "Redis", keyring: Keyring = PLAIN) -> SigningKey:
    """Return the platform's signing key; the first process that asks creates it for all.

    Args:
        keyring: encrypts the key in Redis.

    Raises: StoreUnavailableError, SealedError. ValueError: the stored value is not a key.
    """
    with translate_errors():
        stored = await redis.get(keys.TOKEN_KEY)
        if stored is None:
            fresh = keyring.seal(SigningKey.fresh().pem, TOKEN_KEY_SUBJECT)
            try:
                await redis.set(keys.TOKEN_KEY, fresh, nx=True)
            except NoPermissionError as error:
                raise StoreUnavailableError("the API has not created the platform's token key yet") from error
            stored = await redis.get(keys.TOKEN_KEY)
    sealed = stored if isinstance(stored, bytes) else str(stored).encode()
    key = SigningKey(keyring.open(sealed, TOKEN_KEY_SUBJECT))
    _ = key.private
    return key
