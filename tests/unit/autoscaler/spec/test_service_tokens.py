"""Tokens are issued once, renewed in time, and never issued when they would not be accepted."""

from typing import Any

import pytest

from autoscaler.spec.env_sources import MissingSourceError
from autoscaler.spec.service_tokens import ServiceTokens
from knoll.auth import tokens
from knoll.auth.tokens import SigningKey
from knoll.resources.models.volume import ServiceAccountTokenProjection
from tests.unit.autoscaler.sample_revisions import revision

KEY = SigningKey.fresh()
HOUR = ServiceAccountTokenProjection(path="t", audience="you", expiration_seconds=3600)
NOW = 1_800_000_000.0


class Clock:
    now = NOW

    def __call__(self) -> float:
        return self.now


def account(_: str, name: str) -> Any:
    return {"metadata": {"name": name, "uid": f"uid-{name}"}}


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def given(clock: Clock) -> ServiceTokens:
    made = ServiceTokens(clock)
    made.sign_with(KEY)
    return made


def test_a_token_is_the_accounts_and_for_whom_it_was_asked(given: ServiceTokens) -> None:
    claims = tokens.verify(KEY, given.of(revision(), account)(HOUR).decode(), NOW, "you")
    assert (claims.username, claims.uid) == ("system:serviceaccount:default:default", "uid-default")
    assert claims.expires == NOW + 3600
    plain = given.of(revision(), account)(ServiceAccountTokenProjection(path="t"))
    assert tokens.verify(KEY, plain.decode(), NOW).audiences == (tokens.ISSUER,)


def test_a_token_stays_until_four_fifths_of_its_life_are_over(given: ServiceTokens, clock: Clock) -> None:
    first = given.of(revision(), account)(HOUR)
    clock.now = NOW + 2879
    assert given.of(revision(), account)(HOUR) == first
    clock.now = NOW + 2880
    second = given.of(revision(), account)(HOUR)
    assert second != first
    assert tokens.verify(KEY, second.decode(), clock.now, "you").expires == NOW + 2880 + 3600


def test_a_token_that_lives_long_is_renewed_each_day(given: ServiceTokens, clock: Clock) -> None:
    week = HOUR.model_copy(update={"expiration_seconds": 7 * 24 * 3600})
    first = given.of(revision(), account)(week)
    clock.now = NOW + 24 * 3600
    assert given.of(revision(), account)(week) != first


def test_another_key_and_an_end_of_the_revision_make_new_ones(given: ServiceTokens) -> None:
    first = given.of(revision(), account)(HOUR)
    given.sign_with(KEY)
    assert given.of(revision(), account)(HOUR) == first
    given.forget("uid-hello-00001")
    second = given.of(revision(), account)(HOUR)
    given.sign_with(SigningKey.fresh())
    assert len({first, second, given.of(revision(), account)(HOUR)}) == 3


def test_a_token_that_cannot_be_issued_is_reported(given: ServiceTokens, clock: Clock) -> None:
    with pytest.raises(MissingSourceError, match='serviceaccount "default" not found'):
        given.of(revision(), lambda *_: None)(HOUR)
    with pytest.raises(MissingSourceError, match=r"expirationSeconds .* 60$"):
        given.of(revision(), account)(HOUR.model_copy(update={"expiration_seconds": 60}))
    with pytest.raises(MissingSourceError, match="not available"):
        ServiceTokens(clock).of(revision(), account)(HOUR)


def test_no_token_lives_longer_than_the_maximum(clock: Clock) -> None:
    given = ServiceTokens(clock, lambda: 1800)
    given.sign_with(KEY)
    claims = tokens.verify(KEY, given.of(revision(), account)(HOUR).decode(), NOW, "you")
    assert claims.expires == NOW + 1800
