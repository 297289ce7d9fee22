"""Instances on Docker Engine."""
