"""Revisions and the connections to their instances."""
