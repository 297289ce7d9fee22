"""The configuration that the `docker` command finds: the one it has, with the credentials of one build on top."""

import contextlib
import json
import os
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from builder.build import secret_dirs
from knoll.auth import registry_auth
from knoll.auth.registry_auth import Credential


@contextlib.contextmanager
def folder(known: Sequence[Credential]) -> Iterator[Mapping[str, str]]:
    """Environment that leads `docker` to these credentials, and to what it finds without them; gone afterwards."""
    if not known:
        yield {}
        return
    usual = Path(os.environ.get("DOCKER_CONFIG") or Path.home() / ".docker")
    try:
        before = json.loads((usual / "config.json").read_text())
    except (OSError, ValueError):
        before = {}
    with secret_dirs.folder() as path:
        (path / "config.json").write_text(json.dumps(merged(before, known)))
        yield {"DOCKER_CONFIG": str(path)}


def merged(before: dict[str, Any], known: Sequence[Credential]) -> dict[str, Any]:
    """A configuration with credentials. Pure."""
    ours = json.loads(registry_auth.docker_config(known))["auths"]
    # With a store of credentials the command would not look at those in the file.
    kept = {key: value for key, value in before.items() if key not in ("credsStore", "credHelpers")}
    return {**kept, "auths": {**(before.get("auths") or {}), **ours}}
