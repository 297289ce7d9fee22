"""The API as a process of its own, for tests that kill it or measure its memory."""

import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import IO

import httpx

from tests.conftest import free_port
from tests.waiting import eventually_sync

ROOT = Path(__file__).parents[3]


class ApiProcess:
    """`python -m api` on one port; it can be killed and started again.

    Args:
        redis_url: where its objects are.
        folder: for uploads and its log.
    """

    def __init__(self, redis_url: str, folder: Path, **environment: str) -> None:
        self.port = free_port()
        self.url = f"http://127.0.0.1:{self.port}"
        self.log = folder / "api.log"
        self._environment = {
            **os.environ,
            "PYTHONPATH": f"{ROOT / 'platform'}{os.pathsep}{ROOT}",
            "KNOLL_REDIS_URL": redis_url,
            "KNOLL_API_PORT": str(self.port),
            "KNOLL_UPLOADS_DIR": str(folder / "uploads"),
            **environment,
        }
        self._process: subprocess.Popen[bytes] | None = None
        self._output: IO[bytes] | None = None

    def __enter__(self) -> "ApiProcess":
        self.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.kill()

    def start(self) -> None:
        """Start it; returns when it is ready and the first objects exist."""
        self._output = self.log.open("ab")
        self._process = subprocess.Popen(
            [sys.executable, "-m", "api"], env=self._environment, stdout=self._output, stderr=subprocess.STDOUT
        )
        try:
            eventually_sync(self._serves, within=60, condition="the API")
        except AssertionError:
            self.kill()
            raise

    def kill(self) -> None:
        """SIGKILL: clients are not notified, and nothing is saved."""
        if self._process is not None:
            self._process.send_signal(signal.SIGKILL)
            self._process.wait()
            self._process = None
        if self._output is not None:
            self._output.close()
            self._output = None

    def alive(self) -> bool:
        return self._process is not None and self._process.poll() is None

    def rss_mib(self) -> float:
        """Memory that it holds now, in MiB."""
        return self._memory("VmRSS")

    def peak_mib(self) -> float:
        """The most memory that it ever held, in MiB."""
        return self._memory("VmHWM")

    def _memory(self, field: str) -> float:
        assert self._process is not None
        for line in Path(f"/proc/{self._process.pid}/status").read_text().splitlines():
            if line.startswith(f"{field}:"):
                return int(line.split()[1]) / 1024
        raise AssertionError(f"no {field}: the process has ended")

    def _serves(self) -> bool:
        assert self.alive(), f"the API has ended: {self.log.read_text()[-2000:]}"
        try:
            first = httpx.get(f"{self.url}/api/v1/namespaces/istio-system/services/istio-ingressgateway", timeout=5)
        except httpx.TransportError:
            return False
        return first.status_code == 200
