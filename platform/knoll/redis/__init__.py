"""Connections to Redis, the names of its keys, leases, and encryption of its data."""
