"""The DNS server of instances: dnsmasq with our options. `python -m knoll.process.dns_server` executes it.

It serves cluster-local names from files that an activator writes, and forwards others to the machine's DNS servers.
"""

import os
import shutil
import sys
from collections.abc import Sequence
from pathlib import Path

from knoll.process.settings import NamesSettings

PORT = 53
SEARCH: Sequence[str] = ("svc.cluster.local",)
"""Search domains of instances, which complete `name.namespace`."""
OPTIONS: Sequence[str] = ("ndots:2",)
"""Names with fewer dots are completed first. `name.namespace.svc` has two and is looked up as it is."""
PLACES = "/usr/local/sbin:/usr/sbin"
"""Where dnsmasq is looked up if it is not on PATH; on Debian, only root's PATH contains these folders."""
MISSING = "dnsmasq is not installed: install it (Debian: apt-get install dnsmasq-base)"
_TTL_SECONDS = 5
"""Time to live of the names, as in Kubernetes' DNS."""


def program() -> str | None:
    """Path of dnsmasq; None when it is not installed."""
    return shutil.which("dnsmasq") or shutil.which("dnsmasq", path=PLACES)


def command(folder: Path, host: str, port: int = PORT) -> list[str]:
    """The command line of dnsmasq.

    Args:
        folder: of hosts(5) files; added and removed files take effect immediately.
        host: the only address to listen on.
    """
    return [
        program() or "dnsmasq", "--keep-in-foreground", "--log-facility=-", "--pid-file", "--conf-file=/dev/null",
        "--user=nobody", f"--listen-address={host}", "--bind-interfaces", f"--port={port}",
        "--no-hosts", f"--hostsdir={folder}", f"--local-ttl={_TTL_SECONDS}",
        # Names under these domains exist only in the files; they and names without a dot are not forwarded.
        "--local=/cluster.local/", "--local=/svc/", "--domain-needed",
        "--cache-size=1000", "--dns-forward-max=1000",
    ]  # fmt: skip


def main() -> None:
    """Entry point of `python -m knoll.process.dns_server`."""
    settings = NamesSettings.or_exit()
    if settings.names_dir is None:
        sys.exit("DNS server: KNOLL_NAMES_DIR is not set: set it to the folder to which the activator writes names")
    if program() is None:
        sys.exit(f"DNS server: {MISSING}")
    settings.names_dir.mkdir(parents=True, exist_ok=True)
    arguments = command(settings.names_dir, str(settings.names_host))
    os.execvp(arguments[0], arguments)  # noqa: S606 - nothing of Python has to stay


if __name__ == "__main__":
    main()
