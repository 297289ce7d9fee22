"""Applies and lists rulesets with the program `nft`, and reports changes of the kernel's rules."""

import asyncio
import errno
import os
import shutil
import socket
import subprocess
from collections.abc import AsyncIterator
from pathlib import Path

from knoll.values.errors import KnollError

MISSING = "nft is not installed: install it (Debian: apt-get install nftables)"
SECONDS = 20.0
"""Timeout of one run of nft; the kernel needs milliseconds."""
_SBIN = "/usr/local/sbin:/usr/sbin:/sbin"
"""Where nft is looked up if it is not on PATH; on Debian, only root's PATH contains these folders."""
_TRIAL = """add table inet knoll-trial
add chain inet knoll-trial input { type filter hook input priority 0 ; }
add rule inet knoll-trial input ct direction reply ct state established accept
add rule inet knoll-trial input reject with icmpx type admin-prohibited
add table bridge knoll-trial
add chain bridge knoll-trial forward { type filter hook forward priority 0 ; }
"""
"""Kernel features that rulesets need; only checked, not applied."""
_CAP_NET_ADMIN = 12
_NETLINK_NETFILTER, _NFNLGRP_NFTABLES = 12, 7
"""linux/netlink.h, linux/netfilter/nfnetlink.h."""
_SETTLE_SECONDS = 0.05
"""One change causes several messages."""


class FirewallError(KnollError):
    """The kernel rejected the rules; the message says why."""

    code, reason = 503, "FirewallUnavailable"


def program() -> str | None:
    """Path of nft; None when it is not installed."""
    return shutil.which("nft") or shutil.which("nft", path=_SBIN)


def obstacle() -> str:
    """Why this process cannot filter packets; empty if it can."""
    if not may_filter():
        return "filtering packets needs the capability NET_ADMIN: run this as root"
    binary = program()
    if binary is None:
        return MISSING
    checked = subprocess.run(
        [binary, "--check", "--file", "-"], input=_TRIAL, capture_output=True, text=True, timeout=SECONDS
    )
    if checked.returncode:
        return f"the kernel cannot filter packets with nftables: {checked.stderr.strip()[:300]}"
    return ""


def may_filter() -> bool:
    """Whether this process has the capability NET_ADMIN."""
    try:
        status = Path("/proc/self/status").read_text()
    except OSError:
        return False
    effective = next(line.split()[1] for line in status.splitlines() if line.startswith("CapEff:"))
    return bool(int(effective, 16) >> _CAP_NET_ADMIN & 1)


async def apply(text: str) -> None:
    """Apply a ruleset atomically. Raises: FirewallError."""
    await _run("-f", "-", stdin=text)


async def listing(table: str) -> str:
    """List both tables of that name; a missing table is omitted. Raises: FirewallError."""
    texts = []
    for family in ("inet", "bridge"):
        try:
            texts.append(await _run("--stateless", "list", "table", family, table))
        except FirewallError as error:
            if "No such file or directory" not in str(error):
                raise
            texts.append("")
    return "".join(texts)


async def changes() -> AsyncIterator[None]:
    """Yield whenever any process, including this one, changes nftables rules of the machine."""
    with socket.socket(socket.AF_NETLINK, socket.SOCK_RAW | socket.SOCK_NONBLOCK, _NETLINK_NETFILTER) as news:
        news.bind((0, 1 << (_NFNLGRP_NFTABLES - 1)))
        while True:
            await _readable(news)
            await asyncio.sleep(_SETTLE_SECONDS)
            _drain(news)
            yield


def _drain(news: socket.socket) -> None:
    while True:
        try:
            news.recv(1 << 16)
        except BlockingIOError:
            return
        except OSError as error:
            if error.errno != errno.ENOBUFS:  # more messages than fit the socket's buffer: also a change
                raise


async def _readable(news: socket.socket) -> None:
    loop = asyncio.get_running_loop()
    ready = asyncio.Event()
    loop.add_reader(news, ready.set)
    try:
        await ready.wait()
    finally:
        loop.remove_reader(news)


async def _run(*arguments: str, stdin: str = "") -> str:
    binary = program()
    if binary is None:
        raise FirewallError(MISSING)
    process = await asyncio.create_subprocess_exec(
        binary,
        *arguments,
        stdin=asyncio.subprocess.PIPE,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
        env={"PATH": os.environ.get("PATH", ""), "LC_ALL": "C"},
    )
    try:
        async with asyncio.timeout(SECONDS):
            output, complaint = await process.communicate(stdin.encode())
    except TimeoutError as error:
        raise FirewallError(f"nft did not finish within {SECONDS:g} s") from error
    finally:
        if process.returncode is None:
            process.kill()
    if process.returncode and process.returncode < 0:
        raise FirewallError(f"nft was killed by signal {-process.returncode}: update it (Debian: nftables)")
    if process.returncode:
        raise FirewallError(f"nft: {complaint.decode(errors='replace').strip()[:1000]}")
    return output.decode()
