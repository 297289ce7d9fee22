"""The DNS server that instances ask: dnsmasq, with what we want of it. `python -m knoll.process.dns_server` becomes it.

It knows cluster-local names from files that an activator keeps, and asks whom this machine asks about all others.
"""

import os
import shutil
import sys
from collections.abc import Sequence
from pathlib import Path

from knoll.process.settings import NamesSettings

PORT = 53
SEARCH: Sequence[str] = ("svc.cluster.local",)
"""Completes `name.namespace` in an instance."""
OPTIONS: Sequence[str] = ("ndots:2",)
"""Names with fewer dots are completed first. `name.namespace.svc` has two, and is answered as it is."""
PLACES = "/usr/local/sbin:/usr/sbin"
"""Where it is looked for when it is not on PATH, which on Debian has none of these for others than root."""
MISSING = "dnsmasq is not installed: install it (Debian: apt-get install dnsmasq-base)"
_TTL_SECONDS = 5
"""How long others may keep a name, as Kubernetes' DNS has it."""


def program() -> str | None:
    """Path of dnsmasq; None when it is not installed."""
    return shutil.which("dnsmasq") or shutil.which("dnsmasq", path=PLACES)


def command(folder: Path, host: str, port: int = PORT) -> list[str]:
    """What to run.

    Args:
        folder: of files in the form of hosts(5); each that is put there or goes is taken over at once.
        host: address to answer on, and no other.
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
        sys.exit("names server: KNOLL_NAMES_DIR is not set: set it to the folder to which the activator writes names")
    if program() is None:
        sys.exit(f"names server: {MISSING}")
    settings.names_dir.mkdir(parents=True, exist_ok=True)
    arguments = command(settings.names_dir, str(settings.names_host))
    os.execvp(arguments[0], arguments)  # noqa: S606 - nothing of Python has to stay


if __name__ == "__main__":
    main()
