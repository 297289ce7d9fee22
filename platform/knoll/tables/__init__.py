"""Replicated tables: one writer, many followers, acknowledged versions."""
