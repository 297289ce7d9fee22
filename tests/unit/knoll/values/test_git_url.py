"""Which texts are addresses of Git repositories."""

import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from knoll.values.git_url import is_git_revision, parse_git_url

GOOD = [
    ("https://example.com/team/a", "https", "example.com", "https://example.com/team/a.git"),
    ("https://user@example.com:8443/a.git/", "https", "example.com", "https://user@example.com:8443/a.git"),
    ("http://[2001:db8::1]/a.git", "http", "[2001:db8::1]", "http://[2001:db8::1]/a.git"),
    ("git://example.com:9418/a", "git", "example.com", "git://example.com:9418/a"),
    ("ssh://git@example.com/a", "ssh", "example.com", "ssh://git@example.com/a"),
    ("git@example.com:team/a.git", "ssh", "example.com", "git@example.com:team/a.git"),
]


@pytest.mark.parametrize(("text", "scheme", "host", "context"), GOOD, ids=[row[0] for row in GOOD])
def test_usual_forms_are_read(text: str, scheme: str, host: str, context: str) -> None:
    url = parse_git_url(text)
    assert (url.scheme, url.host, url.context) == (scheme, host, context)


BAD = [
    "http://127.0.0.1:8001/api/v1/namespaces/sec-b/secrets/crown?x=.git",
    "https://example.com/a.git#main",
    "https://user:password@example.com/a.git",
    "https://example.com",
    "https://example.com/",
    "https:///a.git",
    "https://-x/a.git",
    "https://a b/c.git",
    "https://example.com:0/a.git",
    "https://example.com:99999/a.git",
    "https://example.com/a/../../b.git",
    "https://example.com\\@127.0.0.1/a.git",
    "https://example.com/a.git\nx",
    "ssh://-oProxyCommand=id/a",
    "ssh://git@-oProxyCommand=id/a",
    "git@-oProxyCommand:a",
    "git@example.com:-option",
    "git@example.com:/etc",
    "-u@example.com:a",
    "file:///etc",
    "ext::sh -c id",
    "/etc/passwd",
    "./folder",
    "example.com/a.git",
    "--upload-pack=x",
    "",
]


@pytest.mark.parametrize("text", BAD)
def test_everything_else_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match="must be"):
        parse_git_url(text)


@given(st.text() | st.from_regex(r"(https?|git|ssh)://[ -~]{0,40}", fullmatch=True))
def test_what_is_taken_has_a_host_a_path_and_nothing_that_is_read_twice(text: str) -> None:
    try:
        url = parse_git_url(text)
    except ValueError:
        return
    assert not url.text.startswith("-")
    assert re.fullmatch(r"[A-Za-z0-9.-]+|\[[0-9A-Fa-f:.]+\]", url.host)
    assert not url.host.startswith("-")
    assert url.path.strip("/")
    assert not set(url.context) & set("?#\\ \t\r\n\0")
    assert url.scheme == "ssh" or url.context.startswith(f"{url.scheme}://")


@pytest.mark.parametrize("text", ["main", "v1.0", "feature/a-b", "0a1b2c3d", "main:folder/sub", "refs/heads/x"])
def test_revisions(text: str) -> None:
    assert is_git_revision(text)


@pytest.mark.parametrize("text", ["-x", "a b", "a..b", "main:../x", "main:/etc", "a#b", "a?b", "a\n", ""])
def test_texts_that_are_no_revision(text: str) -> None:
    assert not is_git_revision(text)
