"""Placement: which node runs an instance."""
