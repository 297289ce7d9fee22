"""Reconcilers of Services and Configurations. Pure."""
