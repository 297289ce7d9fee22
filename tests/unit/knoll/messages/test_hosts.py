"""The owner of a host, in whatever order claims come and go."""

from dataclasses import dataclass

from hypothesis import given
from hypothesis import strategies as st

from knoll.auth.tenancy import OWNER_BINDING, has_tenants
from knoll.messages.hosts import Claim, Owners

HOSTS = ("a.example.org", "b.example.org")


@dataclass(frozen=True)
class Value:
    claim: Claim


claims = st.builds(
    Claim, st.booleans(), st.sampled_from([0.0, 1.0, 2.0]), st.sampled_from(["a/x", "a/y", "b/x", "b/y"])
)
steps = st.lists(st.tuples(st.sampled_from(HOSTS), claims, st.booleans()), max_size=30)


@given(steps)
def test_any_order_of_adding_and_removing_gives_the_owner_that_the_rule_names(
    steps: list[tuple[str, Claim, bool]],
) -> None:
    owners: Owners[Value] = Owners()
    live: dict[str, dict[str, Claim]] = {host: {} for host in HOSTS}
    for host, claim, added in steps:
        if added:
            owners.put(host, Value(claim))
            live[host][claim.path] = claim
        else:
            owners.remove(host, claim.path)
            live[host].pop(claim.path, None)
        for name, expected in live.items():
            owner = owners.owned.get(name)
            assert (owner.claim if owner else None) == min(expected.values(), default=None)
            assert {value.claim for value in owners.claims(name)} == set(expected.values())


def test_a_mapping_never_takes_the_host_of_a_route() -> None:
    owners: Owners[Value] = Owners()
    owners.put(HOSTS[0], Value(Claim(True, 1.0, "a/domainmapping:a.example.org")))
    owners.put(HOSTS[0], Value(Claim(False, 9.0, "b/shop")))
    assert owners.owned[HOSTS[0]].claim.path == "b/shop"
    owners.remove(HOSTS[0], "b/shop")
    assert owners.owned[HOSTS[0]].claim.mapping


def test_the_first_binding_makes_tenants() -> None:
    assert not has_tenants([], [OWNER_BINDING])
    assert has_tenants([("default", "ci")], [OWNER_BINDING])
    assert has_tenants([], [OWNER_BINDING, "viewers"])
