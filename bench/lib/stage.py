"""Processes for measurements of the data path: Redis, an app, and nginx and the activator as proxies."""

import asyncio
import contextlib
import os
import signal
import socket
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator
from pathlib import Path

from knoll.messages.endpoints import ENDPOINTS, Endpoint, RevisionEndpoints
from knoll.messages.routing import ROUTING, RequestPolicy, RouteEntry, Share
from knoll.redis.client import connected
from knoll.tables.redis_tables import RedisTable

PROXY_CORE, LOAD_CORE = "0", "1"
HOST = "127.0.0.1"

_NGINX = """
worker_processes 1; daemon off; master_process off; pid {dir}/{name}.pid; error_log {dir}/{name}.log;
worker_rlimit_nofile 65536;
events {{ worker_connections 30000; }}
http {{
  access_log off; keepalive_requests 1000000000; keepalive_timeout 300s; client_max_body_size 0;
  client_body_temp_path {dir}/b; proxy_temp_path {dir}/p; fastcgi_temp_path {dir}/f;
  uwsgi_temp_path {dir}/u; scgi_temp_path {dir}/s;
  {rest}
}}
"""
_APP = """
  server {{ listen 127.0.0.1:{port} backlog=8192; root {dir};
    location / {{ default_type text/plain; return 200 "hello world\\n"; }}
    location /gigabyte {{ default_type application/octet-stream; sendfile on; }}
  }}
"""
_PROXY = """
  upstream app {{ server 127.0.0.1:{app}; keepalive 1024; keepalive_requests 1000000000; }}
  upstream upload {{ server 127.0.0.1:{upload}; keepalive 1024; keepalive_requests 1000000000; }}
  upstream grpc {{ server 127.0.0.1:{grpc}; keepalive 1024; keepalive_requests 1000000000; }}
  http2_max_concurrent_streams 250;
  server {{ listen 127.0.0.1:{port} backlog=8192; listen 127.0.0.1:{h2} http2;
    proxy_http_version 1.1; proxy_set_header Connection ""; proxy_set_header Host $http_host;
    proxy_request_buffering off; proxy_max_temp_file_size 0;
    proxy_set_header X-Forwarded-For $proxy_add_x_forwarded_for; proxy_set_header X-Forwarded-Proto $scheme;
    proxy_set_header X-Forwarded-Host $http_host;
    proxy_set_header Forwarded "for=$remote_addr;host=$http_host;proto=$scheme";
    location / {{ proxy_pass http://app; }}
    location /upload {{ proxy_pass http://upload; }}
    location /test.Echo/ {{
      grpc_pass grpc://grpc; grpc_set_header Host $http_host;
      grpc_set_header X-Forwarded-For $proxy_add_x_forwarded_for; grpc_set_header X-Forwarded-Proto $scheme;
      grpc_set_header X-Forwarded-Host $http_host;
      grpc_set_header Forwarded "for=$remote_addr;host=$http_host;proto=$scheme";
    }}
  }}
"""


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind((HOST, 0))
        return int(probe.getsockname()[1])


class Stage:
    """Ports and processes; `close` ends them all."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self.app, self.upload, self.nginx, self.nginx_h2, self.grpc, self.redis = (free_port() for _ in range(6))
        self._processes: list[subprocess.Popen[bytes]] = []
        self.app_pid = 0
        """Process id of the app; 0 before its start."""

    @property
    def redis_url(self) -> str:
        return f"redis://{HOST}:{self.redis}/0"

    def run(self, *command: str, core: str | None = None, **environment: str) -> subprocess.Popen[bytes]:
        pinned = ["taskset", "-c", core, *command] if core else list(command)
        log = (self.directory / "processes.log").open("ab")
        process = subprocess.Popen(
            pinned, stdout=log, stderr=log, env={**os.environ, **environment}, start_new_session=True
        )
        log.close()
        self._processes.append(process)
        return process

    def start(self) -> None:
        for name, text in (
            ("app", _APP.format(port=self.app, dir=self.directory)),
            (
                "proxy",
                _PROXY.format(app=self.app, upload=self.upload, port=self.nginx, h2=self.nginx_h2, grpc=self.grpc),
            ),
        ):
            config = self.directory / f"{name}.conf"
            config.write_text(_NGINX.format(dir=self.directory, name=name, rest=text))
            nginx = self.run("nginx", "-c", str(config), "-e", str(self.directory / "err.log"),
                             core=LOAD_CORE if name == "app" else PROXY_CORE)  # fmt: skip
            if name == "app":
                self.app_pid = nginx.pid
        self.run("redis-server", "--port", str(self.redis), "--bind", HOST, "--save", "", "--dir", str(self.directory))
        self.run(sys.executable, "-m", "bench.lib.upload_app", str(self.upload), core=LOAD_CORE,
                 PYTHONPATH=f"platform{os.pathsep}.")  # fmt: skip
        for port in (self.app, self.upload, self.nginx, self.redis):
            wait_for_port(port)

    @contextlib.contextmanager
    def activator(self, core: str = PROXY_CORE, workers: int = 1, **more: str) -> Iterator["Activator"]:
        port, admin = free_port(), free_port()
        process = self.run(
            sys.executable, "-m", "activator", core=core, KNOLL_REDIS_URL=self.redis_url,
            KNOLL_ACTIVATOR_PORTS=str(port), KNOLL_ACTIVATOR_ADMIN_PORT=str(admin), KNOLL_ACTIVATOR_HOST=HOST,
            KNOLL_ACTIVATOR_WORKERS=str(workers), PYTHONPATH=f"platform{os.pathsep}.", **more,
        )  # fmt: skip
        try:
            deadline = time.monotonic() + 20
            while not _ready(admin):
                if process.poll() is not None or time.monotonic() > deadline:
                    raise RuntimeError((self.directory / "processes.log").read_text())
                time.sleep(0.05)
            yield Activator(port, process)
        finally:
            process.send_signal(signal.SIGTERM)
            process.wait(40)

    def route(self, host: str, endpoints: tuple[Endpoint, ...], plane: RequestPolicy | None = None) -> None:
        """Route a host to these instances."""
        asyncio.run(self.put(host, endpoints, plane))

    async def put(self, host: str, endpoints: tuple[Endpoint, ...], plane: RequestPolicy | None = None) -> None:
        name = f"default/{host.replace('.', '-')}"
        entry = RouteEntry(hosts={host: (Share(name, 100),)}, revisions={name: plane or RequestPolicy()})
        async with connected(self.redis_url) as redis:
            await RedisTable(redis, ENDPOINTS, RevisionEndpoints).put(name, RevisionEndpoints(endpoints))
            await RedisTable(redis, ROUTING, RouteEntry).put(name, entry)

    def close(self) -> None:
        for process in reversed(self._processes):
            if process.poll() is None:
                process.terminate()
        for process in self._processes:
            process.wait(20)


class Activator:
    """A running activator."""

    def __init__(self, port: int, process: subprocess.Popen[bytes]) -> None:
        self.port = port
        self.process = process

    def rss_mib(self) -> float:
        """Return the resident memory of the process and its children."""
        return sum(_rss(pid) for pid in [self.process.pid, *_children(self.process.pid)])

    def workers(self) -> list[int]:
        """Return the processes of the data path: the children, or the process itself when it has none."""
        return _children(self.process.pid) or [self.process.pid]

    def cpu_seconds(self) -> float:
        """Return user and system time of the process and its children."""
        total = 0.0
        for pid in [self.process.pid, *_children(self.process.pid)]:
            fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
            total += (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")
        return total


def _children(pid: int) -> list[int]:
    text = Path(f"/proc/{pid}/task/{pid}/children").read_text()
    return [int(each) for each in text.split()]


def _rss(pid: int) -> float:
    for line in Path(f"/proc/{pid}/status").read_text().splitlines():
        if line.startswith("VmRSS"):
            return int(line.split()[1]) / 1024
    return 0.0


def _ready(admin: int) -> bool:
    try:
        with urllib.request.urlopen(f"http://{HOST}:{admin}/readyz", timeout=1) as answer:
            return bool(answer.status == 200)
    except OSError:
        return False


def wait_for_port(port: int) -> None:
    deadline = time.monotonic() + 10
    while True:
        try:
            socket.create_connection((HOST, port), 1).close()
            return
        except OSError:
            if time.monotonic() > deadline:
                raise
            time.sleep(0.05)
