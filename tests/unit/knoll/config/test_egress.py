"""Lists of allowed destinations: which entries are valid."""

import pytest

from knoll.config.egress import MAX_EGRESS_RULES, EgressRule, parse_egress


@pytest.mark.parametrize(
    ("text", "entries"),
    [
        ("", []),
        ("  ", []),
        ("10.0.0.0/8", [EgressRule("10.0.0.0/8")]),
        ("10.1.2.3", [EgressRule("10.1.2.3/32")]),
        ("10.1.2.3:5432", [EgressRule("10.1.2.3/32", 5432)]),
        ("10.0.0.0/8:443", [EgressRule("10.0.0.0/8", 443)]),
        ("git.example.com", [EgressRule("git.example.com")]),
        ("Registry.Example.com.:5000", [EgressRule("registry.example.com", 5000)]),
        ("localhost", [EgressRule("localhost")]),
        ("10.0.0.0/8, git:22\n\t10.0.0.0/8", [EgressRule("10.0.0.0/8"), EgressRule("git", 22)]),
    ],
)
def test_a_list_is_read(text: str, entries: list[EgressRule]) -> None:
    assert list(parse_egress(text)) == entries


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("10.0.0.1/8", "host bits set"),
        ("300.0.0.1", "300.0.0.1"),
        ("10.0.0.0/33", "10.0.0.0/33"),
        ("git.example.com:0", "1 to 65535"),
        ("git.example.com:65536", "1 to 65535"),
        ("git.example.com:https", "1 to 65535"),
        ("git.example.com:", "1 to 65535"),
        ("git.example.com:٣", "1 to 65535"),
        ("fd00::/8", "IPv6"),
        ("[fd00::1]:443", "IPv6"),
        ("https://git.example.com", "host:port"),
        ("git_example", "neither"),
        ("*.example.com", "neither"),
        ("a" * 64, "neither"),
        ("-a", "neither"),
        ("10.0.0.0/8 } accept", "neither"),
        (" ".join(f"a{number}" for number in range(MAX_EGRESS_RULES + 1)), "at most"),
    ],
)
def test_what_is_wrong_is_refused_with_the_reason(text: str, reason: str) -> None:
    with pytest.raises(ValueError, match=reason):
        parse_egress(text)
