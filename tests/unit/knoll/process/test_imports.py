"""What the long-running processes do not load at their start, because each of these costs megabytes in each of them."""

import subprocess
import sys

import pytest

UNUSED = {
    "api": {"redis", "rq", "docker", "aiohttp", "httpx", "h2", "watchfiles", "requests"},
    "activator": {
        "redis", "rq", "docker", "aiohttp", "httpx", "watchfiles", "requests", "pydantic", "cryptography", "jwt",
        "jsonpatch",
    },
    "autoscaler": {"redis", "rq", "docker", "httpx", "h2", "watchfiles", "requests", "cryptography", "jwt"},
    "builder": {"aiohttp", "httpx", "h2", "watchfiles", "pydantic", "jwt"},
}  # fmt: skip
"""By process. `redis` is redis-py; the processes that need no RQ have `knoll.redis` alone."""


@pytest.mark.parametrize("process", UNUSED)
def test_a_process_does_not_load_what_it_does_not_use(process: str) -> None:
    program = f"import sys, {process}.__main__; print(*(name for name in sys.modules if sys.modules[name]))"
    listed = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert not UNUSED[process] & set(listed.stdout.split())
