"""Keeps a Node object for each machine, from what the machine reports."""
