"""Configuration of the `docker` command for one build: the default one, with the credentials of the build added."""

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
def folder(credentials: Sequence[Credential]) -> Iterator[Mapping[str, str]]:
    """Yield environment variables that make `docker` use these credentials and its usual configuration."""
    if not credentials:
        yield {}
        return
    usual = Path(os.environ.get("DOCKER_CONFIG") or Path.home() / ".docker")
    try:
        before = json.loads((usual / "config.json").read_text())
    except (OSError, ValueError):
        before = {}
    with secret_dirs.folder() as path:
        (path / "config.json").write_text(json.dumps(merged(before, credentials)))
        yield {"DOCKER_CONFIG": str(path)}


def merged(before: dict[str, Any], credentials: Sequence[Credential]) -> dict[str, Any]:
    """Return a configuration with credentials added. Does no I/O."""
    ours = json.loads(registry_auth.docker_config(credentials))["auths"]
    # With a credential store, the command would ignore the credentials in the file.
    kept = {key: value for key, value in before.items() if key not in ("credsStore", "credHelpers")}
    return {**kept, "auths": {**(before.get("auths") or {}), **ours}}
