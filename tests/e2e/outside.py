"""Hosts outside of this machine, for instances and builds to try: a network namespace with addresses of each sort."""

import contextlib
import random
import subprocess
import uuid
from collections.abc import Iterator
from dataclasses import dataclass

from tests.component.firewall.hosts import Host, run

PORT = 8000


@dataclass
class Outside:
    """The namespace. Several may be there at once: each has addresses of its own."""

    host: Host
    number: int
    """Last byte of its addresses, or third of its network's."""

    @property
    def machine(self) -> str:
        """This machine, on the network between both."""
        return f"192.168.{self.number}.1"

    @property
    def neighbour(self) -> str:
        """The namespace on that network."""
        return f"192.168.{self.number}.2"

    @property
    def internet(self) -> str:
        """Of a network for documentation: nothing real is there, and it is not private."""
        return f"198.51.100.{self.number}"

    @property
    def link_local(self) -> str:
        return f"169.254.77.{self.number}"


@contextlib.contextmanager
def outside() -> Iterator[Outside]:
    """Have the addresses reached from this machine, each with a server on `PORT`."""
    token = uuid.uuid4().hex[:6]
    host, link = Host(f"kt{token}"), f"kt{token}"
    made = Outside(host, random.randint(2, 250))
    run("ip", "netns", "add", host.namespace)
    try:
        run("ip", "link", "add", link, "type", "veth", "peer", "name", "eth0", "netns", host.namespace)
        run("ip", "address", "add", f"{made.machine}/24", "dev", link)
        run("ip", "link", "set", link, "up")
        for device in ("lo", "eth0"):
            host.ip("link", "set", device, "up")
        host.ip("address", "add", f"{made.neighbour}/24", "dev", "eth0")
        for address in (made.internet, made.link_local):
            host.ip("address", "add", f"{address}/32", "dev", "eth0")
            run("ip", "route", "add", f"{address}/32", "via", made.neighbour)
        host.start()
        yield made
    finally:
        if host.process:
            host.process.kill()
            host.process.communicate()
        subprocess.run(["ip", "netns", "delete", host.namespace], check=False, capture_output=True)
        subprocess.run(["ip", "link", "delete", link], check=False, capture_output=True)
