"""Heartbeats of nodes. They cost little: Redis does not write them to its append-only file."""

from collections.abc import Mapping

from knoll.redis import keys
from knoll.redis.client import RedisClient, Script

INTERVAL_SECONDS = 1.0

# KEYS: heartbeats, entries of the table of nodes. ARGV: node.
# The heartbeat is replicated, so that nodes do not seem dead after a failover, but not written to the file.
_BEAT = Script("""
local time = redis.call('TIME')
redis.set_repl(redis.REPL_REPLICA)
redis.call('HSET', KEYS[1], ARGV[1], time[1] .. '.' .. string.format('%06d', time[2]))
return redis.call('HGET', KEYS[2], ARGV[1])
""")


class Heartbeats:
    """The heartbeats of all nodes of a platform."""

    def __init__(self, redis: RedisClient, nodes: str) -> None:
        """
        Args:
            redis: created by `client.connect`, and closed by the caller.
            nodes: name of the table of nodes.
        """
        self._redis, self._keys = redis, [keys.NODE_HEARTBEATS, keys.table(nodes)]

    async def beat(self, node: str) -> bytes | None:
        """Record that a node is alive; returns its entry in the table of nodes, as JSON.

        Raises: StoreUnavailableError.
        """
        stored: bytes | None = await self._redis.run(_BEAT, self._keys, [node])
        return stored.partition(b"\n")[2] if stored else None

    async def ages(self) -> Mapping[str, float]:
        """Return the seconds since the last heartbeat of each node. Raises: StoreUnavailableError."""
        (seconds, micros), beats = await self._redis.transaction(("TIME",), ("HGETALL", self._keys[0]))
        now = int(seconds) + int(micros) / 1e6
        return {node.decode(): now - float(beat) for node, beat in beats.items()}

    async def forget(self, node: str) -> None:
        """Remove the heartbeat of a node that is no longer part of the platform. Raises: StoreUnavailableError."""
        await self._redis.execute("HDEL", self._keys[0], node)
