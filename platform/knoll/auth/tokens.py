"""Tokens of ServiceAccounts: JWTs (ES256) with the claims of Kubernetes' bound service account tokens.

Pure, except that each token gets a random id. `token_key` reads the key that signs for the whole platform.

Source: Kubernetes, `pkg/serviceaccount/claims.go`.
"""

import hashlib
import uuid
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import TYPE_CHECKING, Any

from knoll.values.errors import UnauthorizedError

# jwt and cryptography are imported where they are used: an autoscaler without tokens does without their 4 MB.
if TYPE_CHECKING:
    from cryptography.hazmat.primitives.asymmetric import ec

ISSUER = "https://kubernetes.default.svc.cluster.local"
"""Issuer of the tokens, and the audience of tokens for the API itself."""
ALGORITHM = "ES256"
LEAST_SECONDS = 600
"""Minimum lifetime of a token. Source: Kubernetes, TokenRequestSpec.expirationSeconds."""
DEFAULT_SECONDS = 3600
MOST_SECONDS = 1 << 32
"""Maximum lifetime of a token. Source: as above."""
MAX_LENGTH = 16 * 1024
"""Maximum length of a token in characters; longer ones are rejected unread."""
_PREFIX = "system:serviceaccount"
_REQUIRED = ("iss", "sub", "aud", "exp", "iat", "nbf")


@dataclass(frozen=True)
class SigningKey:
    """The platform's key. Keys are equal if their PEMs are."""

    pem: bytes = field(repr=False)
    """PKCS #8, P-256, without passphrase."""

    @classmethod
    def fresh(cls) -> "SigningKey":
        from cryptography.hazmat.primitives.asymmetric import ec
        from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat

        key = ec.generate_private_key(ec.SECP256R1())
        return cls(key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()))

    @cached_property
    def private(self) -> "ec.EllipticCurvePrivateKey":
        """Raises: ValueError if the PEM is not such a key."""
        from cryptography.exceptions import UnsupportedAlgorithm
        from cryptography.hazmat.primitives.asymmetric import ec
        from cryptography.hazmat.primitives.serialization import load_pem_private_key

        try:
            private_key = load_pem_private_key(self.pem, None)
        except (TypeError, ValueError, UnsupportedAlgorithm) as error:
            raise ValueError("the platform's token key is not a plain PKCS #8 key") from error
        if not isinstance(private_key, ec.EllipticCurvePrivateKey) or not isinstance(private_key.curve, ec.SECP256R1):
            raise ValueError("the platform's token key is not a P-256 key")
        return private_key

    @cached_property
    def public(self) -> "ec.EllipticCurvePublicKey":
        return self.private.public_key()

    @cached_property
    def id(self) -> str:
        """`kid` of the tokens it signs."""
        from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

        raw = self.public.public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)
        return hashlib.sha256(raw).hexdigest()[:32]


@dataclass(frozen=True, slots=True)
class Claims:
    """Claims of a valid token. The ServiceAccount may have been deleted since: compare `uid` with the present one's."""

    namespace: str
    name: str
    uid: str
    audiences: tuple[str, ...]
    expires: int
    """Epoch seconds."""

    @property
    def username(self) -> str:
        return username(self.namespace, self.name)


def username(namespace: str, name: str) -> str:
    """The user name of a ServiceAccount."""
    return f"{_PREFIX}:{namespace}:{name}"


def mint(
    key: SigningKey,
    *,
    namespace: str,
    name: str,
    uid: str,
    now: float,
    seconds: int = DEFAULT_SECONDS,
    audiences: Sequence[str] = (),
) -> str:
    """Create a token of the ServiceAccount `namespace/name` with this `uid`.

    Args:
        now: epoch seconds.
        seconds: its lifetime, LEAST_SECONDS to MOST_SECONDS.
        audiences: intended recipients; by default the API.

    Raises: ValueError when `seconds` is out of range.
    """
    import jwt

    if not LEAST_SECONDS <= seconds <= MOST_SECONDS:
        raise ValueError(
            f"the lifetime of a token must be between {LEAST_SECONDS} and {MOST_SECONDS} seconds, not {seconds}"
        )
    issued = int(now)
    claims = {
        "iss": ISSUER,
        "sub": username(namespace, name),
        "aud": list(audiences) or [ISSUER],
        "exp": issued + seconds,
        "iat": issued,
        "nbf": issued,
        "jti": str(uuid.uuid4()),
        "kubernetes.io": {"namespace": namespace, "serviceaccount": {"name": name, "uid": uid}},
    }
    return jwt.encode(claims, key.private, ALGORITHM, headers={"kid": key.id})


def key_id(token: str) -> str:
    """Return the `kid` of an unverified token; empty when it has none.

    Raises: UnauthorizedError when it is not a JWT.
    """
    import jwt

    if len(token) > MAX_LENGTH:
        raise UnauthorizedError("Unauthorized")
    try:
        return str(jwt.get_unverified_header(token).get("kid") or "")
    except jwt.PyJWTError as error:
        raise UnauthorizedError("Unauthorized") from error


def verify(key: SigningKey, token: str, now: float, audience: str | Sequence[str] = ISSUER) -> Claims:
    """Return the claims of `token` if `key` signed it, it is for `audience`, and it is valid at `now` (epoch seconds).

    Raises: UnauthorizedError.
    """
    import jwt

    if len(token) > MAX_LENGTH:
        raise UnauthorizedError("Unauthorized")
    try:
        payload = jwt.decode(
            token,
            key.public,
            [ALGORITHM],
            audience=audience,
            issuer=ISSUER,
            # Times are compared with the caller's clock, below.
            options={"require": list(_REQUIRED), "verify_exp": False, "verify_nbf": False, "verify_iat": False},
        )
        claims, valid_from = _claims(payload)
    except (jwt.PyJWTError, KeyError, TypeError, ValueError) as error:
        raise UnauthorizedError("Unauthorized") from error
    if not valid_from <= now < claims.expires or payload["sub"] != claims.username:
        raise UnauthorizedError("Unauthorized")
    return claims


def _claims(payload: Mapping[str, Any]) -> tuple[Claims, int]:
    bound, audiences = payload["kubernetes.io"], payload["aud"]
    account = bound["serviceaccount"]
    listed = (audiences,) if isinstance(audiences, str) else tuple(str(audience) for audience in audiences)
    claims = Claims(str(bound["namespace"]), str(account["name"]), str(account["uid"]), listed, int(payload["exp"]))
    return claims, int(payload["nbf"])
