"""The key that signs the tokens of the whole platform. It is stored in Redis, encrypted with the platform's keyring."""

from knoll.auth.tokens import SigningKey
from knoll.redis import keys
from knoll.redis.client import RedisClient
from knoll.redis.encryption import PLAIN, TOKEN_KEY_SUBJECT, Keyring
from knoll.values.errors import StoreForbiddenError, StoreUnavailableError


async def shared_key(redis: RedisClient, keyring: Keyring = PLAIN) -> SigningKey:
    """Return the platform's signing key; the first process that asks creates it for all.

    Args:
        keyring: encrypts the key in Redis.

    Raises: StoreUnavailableError, SealedError. ValueError: the stored value is not a key.
    """
    stored: bytes | None = await redis.execute("GET", keys.TOKEN_KEY)
    if stored is None:
        fresh = keyring.seal(SigningKey.fresh().pem, TOKEN_KEY_SUBJECT)
        try:
            await redis.write(("SET", keys.TOKEN_KEY, fresh, "NX"))
        except StoreForbiddenError as error:
            raise StoreUnavailableError("the API has not created the platform's token key yet") from error
        stored = await redis.execute("GET", keys.TOKEN_KEY)
    key = SigningKey(keyring.open(stored or b"", TOKEN_KEY_SUBJECT))
    _ = key.private
    return key
