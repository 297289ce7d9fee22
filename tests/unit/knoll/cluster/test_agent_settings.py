"""The lists of services in the settings of an agent."""

import pytest

from knoll.auth.join_tokens import JoinToken
from knoll.cluster import agent
from knoll.cluster.agent import AgentError
from knoll.cluster.forwarder import Remote
from knoll.cluster.node_folder import accepted_protocols, protocol


def test_services_are_parsed() -> None:
    places = {"redis": ("redis", 6379), "logs": ("autoscaler.control", 8082)}
    assert agent.targets("redis=redis:6379, logs=autoscaler.control:8082") == {
        accepted: place for service, place in places.items() for accepted in accepted_protocols(service)
    }
    assert agent.targets("") == {}


def test_forwards_are_parsed() -> None:
    assert agent.forwards("0.0.0.0:6379=redis@n1/192.0.2.1:7443") == [
        (("0.0.0.0", 6379), Remote("n1", "192.0.2.1", 7443, protocol("redis")))
    ]


@pytest.mark.parametrize("text", ["redis", "redis=redis", "shell=host:1", "redis=a:b:1", "=redis:1", "redis=:1"])
def test_invalid_services_are_named(text: str) -> None:
    with pytest.raises(AgentError, match="KNOLL_AGENT_SERVICES"):
        agent.targets(text)


@pytest.mark.parametrize("text", ["6379=redis@n1/a:1", "h:1=redis/a:1", "h:1=shell@n1/a:1", "h:1=redis@N1/a:1"])
def test_invalid_forwards_are_named(text: str) -> None:
    with pytest.raises(AgentError, match="KNOLL_AGENT_FORWARDS"):
        agent.forwards(text)


@pytest.mark.parametrize("text", ["", "abc", "abcdef.short", f"ABCDEF.{'a' * 32}", f"abcdef.{'a' * 33}"])
def test_an_invalid_join_token_is_refused_without_repeating_it(text: str) -> None:
    with pytest.raises(ValueError, match=r"ID\.SECRET") as caught:
        JoinToken.parse(text)
    assert not text or text not in str(caught.value)


def test_a_join_token_survives_printing() -> None:
    token = JoinToken.fresh()
    assert JoinToken.parse(f" {token}\n") == token
    assert token.secret not in repr(token)
