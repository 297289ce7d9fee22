"""The limits of concurrent requests and streams of one user."""

from contextlib import ExitStack

import pytest

from api.auth.fair_use import FairUse, MaxRequestsInFlight
from api.auth.identity import ANONYMOUS, LOCAL, User, service_account
from knoll.config.security import SecurityConfig
from knoll.values.errors import TooManyRequestsError

FAIR = SecurityConfig(max_requests_per_user=2, max_streams_per_user=1)


@pytest.mark.parametrize("user", [ANONYMOUS, service_account("team", "robot"), User("ann")])
def test_requests_and_streams_of_a_user_are_counted_apart_and_given_back(user: User) -> None:
    fair = FairUse(lambda: FAIR)
    with ExitStack() as stack:
        for stream in (False, False, True):
            stack.enter_context(fair.admit(user, stream=stream))
        for stream, key in ((False, "max-requests-per-user"), (True, "max-streams-per-user")):
            with pytest.raises(TooManyRequestsError, match=key), fair.admit(user, stream=stream):
                pass
        with fair.admit(User("other"), stream=True):
            pass
    with fair.admit(user, stream=True), fair.admit(user, stream=False):
        pass
    assert not fair._open


def test_a_request_that_fails_is_given_back() -> None:
    fair = FairUse(lambda: FAIR)
    for _ in range(5):
        with pytest.raises(ValueError, match="bad"), fair.admit(ANONYMOUS, stream=True):
            raise ValueError("bad")


def test_the_administrator_of_the_plain_port_has_no_bound() -> None:
    fair = FairUse(lambda: FAIR)
    with ExitStack() as stack:
        for _ in range(10):
            stack.enter_context(fair.admit(LOCAL, stream=True))


def test_requests_beyond_what_can_be_answered_in_time_are_told_to_come_back() -> None:
    limit = MaxRequestsInFlight(reading=2, writing=1)
    with ExitStack() as stack:
        for writing in (False, False, True):
            stack.enter_context(limit.admit(writing=writing))
        for writing in (False, True):
            with pytest.raises(TooManyRequestsError, match="try again later"), limit.admit(writing=writing):
                pass
    with limit.admit(writing=True), pytest.raises(TooManyRequestsError), limit.admit(writing=True):
        pass
