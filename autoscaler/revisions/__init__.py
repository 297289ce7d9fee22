"""Scaling one Revision."""
