"""Decisions about scale, capacity, idle instances and rollback. Pure."""
