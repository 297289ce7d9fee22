"""A platform as an operator runs it, with Compose, and two tenants on it: A, who attacks, and B, who is
attacked. Everything that is secret contains `CANARY`."""

import base64
import contextlib
import json
import os
import random
import ssl
import subprocess
import sys
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

import httpx
import yaml

from tests.conftest import free_port
from tests.images import image_name, platform_name, references_of, remove_images
from tests.waiting import eventually_sync

ROOT = Path(__file__).parents[3]
CANARY = "canary-4f1e9c"
START_SECONDS = 180
ATTACKER, VICTIM = "sec-a", "sec-b"


@dataclass(frozen=True)
class User:
    """A user with a token."""

    kubeconfig: Path
    home: Path
    namespace: str

    @cached_property
    def _cluster(self) -> Mapping[str, Any]:
        return dict(yaml.safe_load(self.kubeconfig.read_text()))

    @property
    def token(self) -> str:
        return str(self._cluster["users"][0]["user"]["token"])

    @property
    def server(self) -> str:
        """Base URL of the API over https."""
        return str(self._cluster["clusters"][0]["cluster"]["server"])

    def kubectl(self, *arguments: str, stdin: str = "", check: bool = True) -> subprocess.CompletedProcess[str]:
        environment = {**os.environ, "HOME": str(self.home), "KUBECONFIG": str(self.kubeconfig)}
        command = ["kubectl", *arguments]
        done = subprocess.run(command, input=stdin, capture_output=True, text=True, timeout=120, env=environment)
        if check and done.returncode:
            raise AssertionError(f"{' '.join(arguments)}: exit {done.returncode}\n{done.stdout}{done.stderr}")
        return done

    def knoll(self, *arguments: str) -> subprocess.CompletedProcess[str]:
        command = [
            sys.executable,
            "-m",
            "knoll.cli",
            *arguments,
            "--kubeconfig",
            str(self.kubeconfig),
            "-n",
            self.namespace,
        ]
        return subprocess.run(command, capture_output=True, text=True, timeout=300)

    def api(self, method: str, path: str, body: object = None, **more: str) -> httpx.Response:
        """One call of the API with the user's token.

        Args: more: headers, with `_` for `-`.
        """
        headers = {key.replace("_", "-"): more[key] for key in more}
        if method == "PATCH":
            headers["Content-Type"] = "application/merge-patch+json"
        with self.client() as client:
            return client.request(method, path, json=body, headers=headers)

    def client(self) -> httpx.Client:
        """A client of the API with the user's token."""
        authority = base64.b64decode(self._cluster["clusters"][0]["cluster"]["certificate-authority-data"])
        trust = ssl.create_default_context(cadata=authority.decode())
        return httpx.Client(
            base_url=self.server, verify=trust, timeout=20, headers={"Authorization": f"Bearer {self.token}"}
        )


@dataclass
class Site:
    """The running platform."""

    folder: Path
    name: str = field(default_factory=lambda: platform_name("atk"))
    prefix: str = field(default_factory=lambda: f"10.{random.randint(100, 126)}")
    """First two numbers of the instances' addresses."""
    ports: Mapping[str, int] = field(
        default_factory=lambda: {name: free_port() for name in ("HTTP", "HTTPS", "API", "API_TLS")}
    )
    environment: dict[str, str] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.environment |= {
            **{f"KNOLL_{name}_PORT": str(port) for name, port in self.ports.items()},
            "KNOLL_PLATFORM": self.name,
            "KNOLL_INSTANCE_PREFIX": self.prefix,
            "KNOLL_IMAGE": image_name("platform"),
            "KNOLL_BUILD_BRIDGE": f"{self.name}-b",
        }

    @property
    def plain(self) -> str:
        """Base URL of the API's port for the person at this machine."""
        return f"http://127.0.0.1:{self.ports['API']}"

    @property
    def gateway(self) -> str:
        return f"http://127.0.0.1:{self.ports['HTTP']}"

    @cached_property
    def admin(self) -> User:
        return self._user("admin", "default", self.compose("exec", "-T", "api", "knoll", "kubeconfig"))

    @cached_property
    def attacker(self) -> User:
        return self._tenant(ATTACKER)

    @cached_property
    def victim(self) -> User:
        return self._tenant(VICTIM)

    def compose(self, *arguments: str, check: bool = True) -> str:
        done = subprocess.run(
            ["docker", "compose", *arguments],
            cwd=ROOT,
            env={**os.environ, **self.environment},
            capture_output=True,
            text=True,
            timeout=START_SECONDS * 2,
            stdin=subprocess.DEVNULL,
        )
        if check and done.returncode:
            raise AssertionError(f"docker compose {' '.join(arguments)}:\n{done.stdout[-3000:]}{done.stderr[-3000:]}")
        return done.stdout

    def script(self, text: str) -> None:
        """Run shell lines with the functions of scripts/lib.sh."""
        environment = {**os.environ, **self.environment}
        done = subprocess.run(
            ["bash", "-c", f"set -euo pipefail; . scripts/lib.sh; {text}"],
            cwd=ROOT, env=environment, capture_output=True, text=True, timeout=600,
        )  # fmt: skip
        assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-3000:]

    def address(self, service: str, network: str = "control") -> str:
        """Of one of the platform's containers."""
        container = self.compose("ps", "-q", service).strip()
        full = f"{self.name}_{network}" if network == "control" else f"{self.name}-{network}"
        listed = subprocess.run(["docker", "inspect", container], capture_output=True, text=True, check=True).stdout
        return str(json.loads(listed)[0]["NetworkSettings"]["Networks"][full]["IPAddress"])

    def configure(self, config_map: str, **data: str | None) -> None:
        """Set keys of a ConfigMap of the platform; None removes one. `_` stands for `-`."""
        patch = json.dumps({"data": {key.replace("_", "-"): value for key, value in data.items()}})
        self.admin.kubectl("patch", "configmap", config_map, "-n", "knative-serving", "--type=merge", "-p", patch)

    @contextlib.contextmanager
    def configured(self, config_map: str, **data: str) -> Iterator[None]:
        self.configure(config_map, **data)
        try:
            yield
        finally:
            self.configure(config_map, **dict.fromkeys(data))

    @contextlib.contextmanager
    def bound(self, role: str, namespace: str) -> Iterator[None]:
        """The attacker has a role in a namespace, as if authorisation let everything pass."""
        arguments = ("rolebinding", "off", "-n", namespace)
        self.admin.kubectl("create", *arguments, f"--clusterrole={role}", f"--serviceaccount={ATTACKER}:user")
        try:
            yield
        finally:
            self.admin.kubectl("delete", *arguments)

    def get(self, host: str, path: str = "/", /, **query: str) -> httpx.Response:
        """A request through the public gateway."""
        with httpx.Client(base_url=self.gateway, timeout=60) as client:
            return client.get(path, params=query, headers={"Host": host})

    def _tenant(self, namespace: str) -> User:
        self.admin.kubectl("create", "namespace", namespace)
        self.admin.kubectl("create", "serviceaccount", "user", "-n", namespace)
        binding = ("--clusterrole=edit", f"--serviceaccount={namespace}:user")
        self.admin.kubectl("create", "rolebinding", "user", "-n", namespace, *binding)
        arguments = ("exec", "-T", "api", "knoll", "kubeconfig", "--service-account", "user", "-n", namespace)
        return self._user(namespace, namespace, self.compose(*arguments))

    def _user(self, name: str, namespace: str, kubeconfig: str) -> User:
        file, home = self.folder / f"{name}.yaml", self.folder / f"home-{name}"
        file.write_text(kubeconfig)
        home.mkdir(exist_ok=True)
        return User(file, home, namespace)


@contextlib.contextmanager
def running(folder: Path) -> Iterator[Site]:
    """Build the platform's image from this tree, start it, and remove all of it afterwards."""
    site = Site(folder)
    try:
        site.script("export_build_settings; docker compose build --quiet api")
        site.compose("up", "--detach", "--no-build", "--wait", "--wait-timeout", str(START_SECONDS))
        eventually_sync(lambda: httpx.get(f"{site.plain}/readyz").is_success, within=30, condition="the API")
        yield site
    finally:
        site.script("scripts/down.sh")
        remove_images(*references_of(site.name))
