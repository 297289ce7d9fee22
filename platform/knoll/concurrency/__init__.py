"""Helpers for loops on asyncio that every process has: pauses between retries, and wake-ups that coalesce."""
