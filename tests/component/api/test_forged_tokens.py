"""Tokens that the platform did not issue are rejected, however they are made."""

import base64
import hashlib
import hmac
import json
import time
from collections.abc import AsyncIterator, Callable
from typing import Any

import jwt
import pytest
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

from knoll.auth import token_key, tokens
from knoll.auth.kubeconfig import OWNER
from knoll.process.settings import ApiSettings
from knoll.redis.client import connected
from knoll.store.redis_store import RedisStore
from knoll.values.json import Json
from knoll.values.kinds import SERVICE_ACCOUNT
from tests.component.api.conftest import Running, serving
from tests.component.api.raw import connected as raw_connection

Forge = Callable[[tokens.SigningKey, str, Json, Json], str]
SECRETS = "/api/v1/namespaces/default/secrets"

pytestmark = pytest.mark.redis


@pytest.fixture
async def api(redis_url: str, settings: ApiSettings) -> AsyncIterator[Running]:
    async with connected(redis_url, "test") as redis:
        store = RedisStore(redis)
        async with serving(store, settings, redis) as running:
            yield running
        await store.close()


def b64(data: bytes | Json) -> str:
    raw = json.dumps(data).encode() if isinstance(data, dict) else data
    return base64.urlsafe_b64encode(raw).decode().rstrip("=")


def joined(header: Json, claims: Json, signature: bytes = b"") -> str:
    return f"{b64(header)}.{b64(claims)}.{b64(signature)}"


def hs256(secret: bytes, header: Json, claims: Json) -> str:
    signed = f"{b64({**header, 'alg': 'HS256'})}.{b64(claims)}"
    return f"{signed}.{b64(hmac.digest(secret, signed.encode(), hashlib.sha256))}"


def public(key: tokens.SigningKey, encoding: Encoding) -> bytes:
    return key.public.public_bytes(encoding, PublicFormat.SubjectPublicKeyInfo)


def signed_by(key: Any, algorithm: str = "ES256", **header: Any) -> Forge:
    """Signed by someone else's key."""
    return lambda platform, _, fields, claims: jwt.encode(
        claims, key, algorithm, headers={"kid": platform.id, **header}
    )


def with_claims(**changed: Any) -> Forge:
    """Signed by the platform's key, over claims that it does not sign; None takes one away."""

    def forge(key: tokens.SigningKey, _: str, header: Json, claims: Json) -> str:
        new = {name: value for name, value in {**claims, **changed}.items() if value is not None}
        return jwt.encode(new, key.private, "ES256", headers={"kid": key.id})

    return forge


def bound_to(**changed: Any) -> Forge:
    """As `with_claims`, about another ServiceAccount than `sub` says."""

    def forge(key: tokens.SigningKey, token: str, header: Json, claims: Json) -> str:
        bound = claims["kubernetes.io"]
        account = {**bound["serviceaccount"], **changed}
        return with_claims(**{"kubernetes.io": {**bound, "serviceaccount": account}})(key, token, header, claims)

    return forge


def cut(token: str, part: int, change: Callable[[str], str]) -> str:
    parts = token.split(".")
    parts[part] = change(parts[part])
    return ".".join(parts)


def flipped(text: str) -> str:
    middle = len(text) // 2
    return text[:middle] + ("A" if text[middle] != "A" else "B") + text[middle + 1 :]


MINE = ec.generate_private_key(ec.SECP256R1())
NOW = int(time.time())
FORGED: dict[str, Forge] = {
    "no algorithm": lambda key, _, header, claims: joined({**header, "alg": "none"}, claims),
    "no algorithm, in capitals": lambda key, _, header, claims: joined({**header, "alg": "NONE"}, claims),
    "no algorithm, mixed": lambda key, _, header, claims: joined({**header, "alg": "nOnE"}, claims),
    "no algorithm with a signature": lambda key, token, header, claims: joined(
        {**header, "alg": "none"}, claims, token.split(".")[2].encode()
    ),
    "an empty algorithm": lambda key, _, header, claims: joined({**header, "alg": ""}, claims),
    "an algorithm that is no text": lambda key, _, header, claims: joined({**header, "alg": ["none"]}, claims),
    "no alg at all": lambda key, _, header, claims: joined({"typ": "JWT", "kid": key.id}, claims),
    "HMAC with the public key in PEM": lambda key, _, h, c: hs256(public(key, Encoding.PEM), h, c),
    "HMAC with the public key in DER": lambda key, _, h, c: hs256(public(key, Encoding.DER), h, c),
    "HMAC with the key's id": lambda key, _, h, c: hs256(key.id.encode(), h, c),
    "HMAC with nothing": lambda key, _, h, c: hs256(b"", h, c),
    "another key of the same id": signed_by(MINE),
    "another key of no id": signed_by(MINE, kid=""),
    "another key with itself in the header": signed_by(
        MINE, jwk=json.loads(jwt.algorithms.ECAlgorithm.to_jwk(MINE.public_key()))
    ),
    "another key by an address": signed_by(MINE, jku="http://127.0.0.1:1/jwks", x5u="http://127.0.0.1:1/x"),
    "another key whose id is a path": signed_by(MINE, kid="../../../../dev/null"),
    "another key whose id is a query": signed_by(MINE, kid="' UNION SELECT 'x"),
    "a key of another curve": signed_by(ec.generate_private_key(ec.SECP384R1()), "ES384"),
    "an RSA key": signed_by(rsa.generate_private_key(65537, 2048), "RS256"),
    "an unknown critical field": lambda key, _, header, claims: jwt.encode(
        claims, key.private, "ES256", headers={"kid": key.id, "crit": ["b64"], "b64": False}
    ),
    "expired": with_claims(exp=NOW - 1),
    "not yet valid": with_claims(nbf=NOW + 3600),
    "no end": with_claims(exp=None),
    "no beginning": with_claims(nbf=None),
    "an end that is no number": with_claims(exp="tomorrow"),
    "an end that is infinite": lambda key, _, header, claims: joined(header, {**claims, "exp": float("inf")}),
    "another issuer": with_claims(iss="https://evil.example"),
    "no issuer": with_claims(iss=None),
    "another audience": with_claims(aud=["vault"]),
    "no audience": with_claims(aud=[]),
    "another subject": with_claims(sub="system:serviceaccount:default:other"),
    "masters as the subject": with_claims(sub="system:masters"),
    "a subject of two accounts": with_claims(sub=f"system:serviceaccount:{OWNER[0]}:{OWNER[1]}:x"),
    "the owner's name with another uid": bound_to(uid="00000000-0000-0000-0000-000000000000"),
    "the owner's name without a uid": bound_to(uid=""),
    "an account of another name": bound_to(name="other"),
    "a name with a slash": bound_to(name="../default/owner"),
    "no account": with_claims(**{"kubernetes.io": None}),
    "an account that is no object": with_claims(**{"kubernetes.io": "owner"}),
    "a changed signature": lambda key, token, header, claims: cut(token, 2, flipped),
    "half a signature": lambda key, token, header, claims: cut(token, 2, lambda text: text[:40]),
    "no signature": lambda key, token, header, claims: cut(token, 2, lambda text: ""),
    "a signature of zeros": lambda key, token, header, claims: cut(token, 2, lambda text: b64(bytes(64))),
    "changed claims": lambda key, token, header, claims: cut(
        token, 1, lambda text: b64({**claims, "exp": claims["exp"] + 1})
    ),
    "a changed header": lambda key, token, header, claims: cut(token, 0, lambda text: b64({**header, "typ": "x"})),
    "two parts": lambda key, token, header, claims: token.rpartition(".")[0],
    "four parts": lambda key, token, header, claims: f"{token}.x",
    "five parts": lambda key, token, header, claims: f"{token}.x.y",
    "a space inside": lambda key, token, header, claims: cut(token, 1, lambda text: f"{text[:9]} {text[9:]}"),
    "two tokens": lambda key, token, header, claims: f"{token},{token}",
    "a long text": lambda key, token, header, claims: token + "A" * tokens.MAX_LENGTH,
    "deep claims": lambda key, token, header, claims: cut(token, 1, lambda text: b64(b'{"a":' * 2000)),
    "dots alone": lambda key, token, header, claims: "..",
}


@pytest.mark.parametrize("forge", FORGED.values(), ids=list(FORGED))
async def test_a_forged_token_is_rejected(api: Running, redis_url: str, forge: Forge) -> None:
    async with connected(redis_url, "test") as redis:
        key = await token_key.shared_key(redis)
    account = await api.store.get(SERVICE_ACCOUNT.id, *OWNER)
    uid = account["metadata"]["uid"]
    good = tokens.mint(key, namespace=OWNER[0], name=OWNER[1], uid=uid, now=time.time())
    header, claims = jwt.get_unverified_header(good), jwt.decode(good, options={"verify_signature": False})
    # The same request with the token that all of them are made from is answered: nothing else refuses them.
    assert (await api.client.get(SECRETS, headers={"Authorization": f"Bearer {good}"})).status_code == 200
    forged = forge(key, good, header, claims)
    assert forged != good
    answer = await api.client.get(SECRETS, headers={"Authorization": f"Bearer {forged}"})
    assert (answer.status_code, answer.json()["message"]) == (401, "Unauthorized")


@pytest.mark.parametrize(
    "fields",
    [
        "Authorization: Bearer",
        "Authorization: Bearer ",
        "Authorization: Basic b3duZXI6",
        "Authorization: owner",
        "Authorization: Bearer x\r\nAuthorization: Bearer {good}",
        "Authorization: \xff",
    ],
)
async def test_a_header_that_names_no_token_does_not_make_an_administrator(
    api: Running, redis_url: str, fields: str
) -> None:
    """Also on the plain port, where a request without any is the administrator's."""
    async with connected(redis_url, "test") as redis:
        key = await token_key.shared_key(redis)
    account = await api.store.get(SERVICE_ACCOUNT.id, *OWNER)
    good = tokens.mint(key, namespace=OWNER[0], name=OWNER[1], uid=account["metadata"]["uid"], now=time.time())
    async with raw_connection(api.url) as raw:
        head = f"GET {SECRETS} HTTP/1.1\r\nHost: localhost\r\n{fields.replace('{good}', good)}\r\n\r\n"
        await raw.send(head.encode("latin-1"))
        assert (await raw.answer()).code == 401


@pytest.mark.parametrize("name", ["access_token", "token", "authorization"])
async def test_a_token_in_the_url_is_ignored(api: Running, redis_url: str, name: str) -> None:
    async with connected(redis_url, "test") as redis:
        key = await token_key.shared_key(redis)
    account = await api.store.get(SERVICE_ACCOUNT.id, *OWNER)
    good = tokens.mint(key, namespace=OWNER[0], name=OWNER[1], uid=account["metadata"]["uid"], now=time.time())
    answer = await api.client.get(SECRETS, params={name: good}, headers={"Authorization": "Bearer x"})
    assert answer.status_code == 401
