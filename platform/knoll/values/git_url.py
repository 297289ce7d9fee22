"""URLs of Git repositories, parsed strictly: anything ambiguous never reaches BuildKit or git. Pure.

BuildKit downloads any URL that it does not recognize as a repository as a file, and git treats `ssh://-option` as an
option and other text as a local path. So only these forms are accepted: `https://`, `http://`, `git://` and `ssh://`
with a host and a path, and `USER@HOST:PATH`, without query, fragment and password.
"""

import re
from dataclasses import dataclass

_HOST = r"(?P<host>[A-Za-z0-9](?:[A-Za-z0-9.-]*[A-Za-z0-9])?\.?|\[[0-9A-Fa-f:.]+\])"
_USER = r"(?:(?P<user>[A-Za-z0-9_][A-Za-z0-9_.~-]*)@)?"
_PATH = r"[A-Za-z0-9._~+@%/-]+"
_URL = re.compile(rf"(?P<scheme>https?|git|ssh)://{_USER}{_HOST}(?::(?P<port>[0-9]{{1,5}}))?(?P<path>/{_PATH})")
_SCP = re.compile(rf"(?P<user>[A-Za-z0-9_][A-Za-z0-9_.-]*)@{_HOST}:(?P<path>(?![-/]){_PATH})")
_REVISION = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_./+@-]*(?::[A-Za-z0-9_][A-Za-z0-9_./-]*)?")


@dataclass(frozen=True, slots=True)
class GitUrl:
    """The URL of a repository."""

    scheme: str
    """`https`, `http`, `git` or `ssh`."""
    host: str
    """A name, an IPv4 address, or an IPv6 address in brackets."""
    port: int | None
    path: str
    text: str
    """As it was written."""

    @property
    def context(self) -> str:
        """The URL in the form that BuildKit recognizes: over HTTP it must end in `.git`."""
        bare = self.text.rstrip("/")
        recognised = bare.endswith(".git") or self.scheme not in ("http", "https")
        return bare if recognised else f"{bare}.git"


def parse_git_url(text: str) -> GitUrl:
    """Raises: ValueError: the message describes the valid forms."""
    match = _URL.fullmatch(text)
    scheme = match["scheme"] if match else "ssh"
    port = int(match["port"]) if match and match["port"] else None
    match = match or _SCP.fullmatch(text)
    if match is None or ".." in match["path"].split("/") or not match["path"].strip("/"):
        raise ValueError(
            "must be https://HOST/PATH, http://…, git://…, ssh://[USER@]HOST/PATH or USER@HOST:PATH, "
            "without query, fragment or password"
        )
    if port is not None and not 0 < port < 65536:
        raise ValueError("the port must be between 1 and 65535")
    return GitUrl(scheme, match["host"], port, match["path"], text)


def is_git_revision(text: str) -> bool:
    """Whether a string can be a branch, tag or commit, optionally with a subfolder after a colon."""
    return bool(_REVISION.fullmatch(text)) and ".." not in text
