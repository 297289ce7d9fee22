"""Tokens of ServiceAccounts: issued tokens are accepted, and no others."""

import base64
import json

import jwt
import pytest
from hypothesis import given
from hypothesis import strategies as st

from knoll.auth import tokens
from knoll.auth.tokens import SigningKey
from knoll.values.errors import UnauthorizedError

KEY = SigningKey.fresh()
NOW = 1_800_000_000.5
names = st.from_regex(r"[a-z0-9]([a-z0-9-]{0,20}[a-z0-9])?", fullmatch=True)


def minted(**changed: object) -> str:
    claims: dict[str, object] = {"namespace": "team", "name": "robot", "uid": "u-1", "now": NOW}
    return tokens.mint(KEY, **{**claims, **changed})  # type: ignore[arg-type]


@given(
    names, names, st.uuids().map(str), st.integers(tokens.LEAST_SECONDS, tokens.MOST_SECONDS),
    st.lists(st.text(min_size=1), max_size=3),
)  # fmt: skip
def test_a_minted_token_names_its_user_until_it_expires(
    namespace: str, name: str, uid: str, seconds: int, audiences: list[str]
) -> None:
    token = minted(namespace=namespace, name=name, uid=uid, seconds=seconds, audiences=audiences)
    audience = audiences[-1] if audiences else tokens.ISSUER
    claims = tokens.verify(KEY, token, NOW + seconds - 1, audience)
    assert (claims.namespace, claims.name, claims.uid) == (namespace, name, uid)
    assert claims.username == f"system:serviceaccount:{namespace}:{name}"
    for moment in (NOW + seconds, NOW - 2):
        with pytest.raises(UnauthorizedError):
            tokens.verify(KEY, token, moment, audience)


def test_the_claims_are_those_of_kubernetes() -> None:
    claims = jwt.decode(minted(), options={"verify_signature": False})
    assert claims.pop("jti")
    assert claims == {
        "iss": tokens.ISSUER,
        "sub": "system:serviceaccount:team:robot",
        "aud": [tokens.ISSUER],
        "exp": 1_800_003_600,
        "iat": 1_800_000_000,
        "nbf": 1_800_000_000,
        "kubernetes.io": {"namespace": "team", "serviceaccount": {"name": "robot", "uid": "u-1"}},
    }
    assert tokens.key_id(minted()) == KEY.id


def test_a_token_of_another_key_or_audience_is_refused() -> None:
    with pytest.raises(UnauthorizedError):
        tokens.verify(SigningKey.fresh(), minted(), NOW)
    with pytest.raises(UnauthorizedError):
        tokens.verify(KEY, minted(audiences=["vault"]), NOW)


def test_a_token_that_is_not_signed_is_refused() -> None:
    claims = jwt.decode(minted(), options={"verify_signature": False})
    for forged in (jwt.encode(claims, "", "none"), jwt.encode(claims, "x" * 32, "HS256")):
        with pytest.raises(UnauthorizedError):
            tokens.verify(KEY, forged, NOW)


@given(st.text(max_size=40))
def test_a_token_with_other_claims_under_the_same_signature_is_refused(name: str) -> None:
    head, body, signature = minted().split(".")
    claims = json.loads(base64.urlsafe_b64decode(body + "=="))
    claims["sub"] = f"system:serviceaccount:team:{name}"
    if name == "robot":
        return
    changed = base64.urlsafe_b64encode(json.dumps(claims).encode()).rstrip(b"=").decode()
    with pytest.raises(UnauthorizedError):
        tokens.verify(KEY, f"{head}.{changed}.{signature}", NOW)


@given(st.text())
def test_what_is_no_token_is_refused_and_never_breaks(text: str) -> None:
    with pytest.raises(UnauthorizedError):
        tokens.verify(KEY, text, NOW)
    with pytest.raises(UnauthorizedError):
        tokens.key_id(text)


@pytest.mark.parametrize("missing", ["iss", "sub", "aud", "exp", "iat", "nbf", "kubernetes.io"])
def test_a_token_that_lacks_a_claim_is_refused(missing: str) -> None:
    claims = jwt.decode(minted(), options={"verify_signature": False})
    del claims[missing]
    with pytest.raises(UnauthorizedError):
        tokens.verify(KEY, jwt.encode(claims, KEY.private, "ES256"), NOW)


@pytest.mark.parametrize("seconds", [0, 599, (1 << 32) + 1])
def test_a_life_out_of_range_is_refused(seconds: int) -> None:
    with pytest.raises(ValueError, match="between 600 and"):
        minted(seconds=seconds)


def test_a_key_never_shows_itself_in_logs() -> None:
    assert "PRIVATE" not in repr(KEY)
