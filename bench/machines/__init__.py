"""Figures of a platform on several machines; see machines.md."""
