"""Helpers for asyncio loops in all processes: pauses between retries, and coalesced wake-ups."""
