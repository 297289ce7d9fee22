"""Annotations with a grammar of their own. Pure."""
