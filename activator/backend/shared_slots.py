"""containerConcurrency across worker processes: one byte of a shared file for each slot of each instance.

A slot is taken by locking its byte (`fcntl`, one system call, non-blocking). The kernel keeps the locks: two workers
can never hold the same slot, and the slots of a killed worker are free at once. Nothing has to be repaired.
"""

import contextlib
import fcntl
import hashlib
import os

from activator.backend.endpoint import PoolFactory, UpstreamEndpoint

_MOST = 4096
"""Bytes reserved for one instance; containerConcurrency is at most 1000 by default."""


def lock_file() -> int:
    """Create the file; returns its descriptor, which the workers inherit."""
    return os.memfd_create("knoll-slots", 0)


class SharedEndpoint(UpstreamEndpoint):
    """An endpoint whose slots are shared with other processes."""

    __slots__ = ("_base", "_file", "_held", "_turn")

    def __init__(self, file: int, id_: str, host: str, port: int, limit: int, new_http2_pool: PoolFactory) -> None:
        """Args: file: from `lock_file`, the same in all workers; the others are those of `UpstreamEndpoint`."""
        super().__init__(id_, host, port, limit, new_http2_pool)
        self._file = file
        # A hash of the name: all workers compute the same place without talking to each other.
        self._base = (int.from_bytes(hashlib.blake2b(id_.encode(), digest_size=6).digest(), "big") >> 1) * _MOST
        self._held: list[int] = []
        self._turn = 0

    def take_slot(self) -> bool:
        if not self.limit:
            self.in_flight += 1
            return True
        held = self._held
        if len(held) >= self.limit:
            return False
        for step in range(self.limit):
            slot = (self._turn + step) % self.limit
            # A process may lock a byte again that it has locked already, so its own slots are checked here.
            if slot not in held and self._lock(slot):
                held.append(slot)
                self._turn = slot + 1
                self.in_flight += 1
                return True
        return False

    def release_slot(self) -> None:
        self.in_flight -= 1
        # A request that was admitted without a limit has locked nothing.
        if len(self._held) > self.in_flight:
            fcntl.lockf(self._file, fcntl.LOCK_UN, 1, self._base + self._held.pop())

    def _lock(self, slot: int) -> bool:
        with contextlib.suppress(BlockingIOError, PermissionError):
            fcntl.lockf(self._file, fcntl.LOCK_EX | fcntl.LOCK_NB, 1, self._base + slot)
            return True
        return False
