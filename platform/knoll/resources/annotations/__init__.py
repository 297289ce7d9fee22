"""Annotations whose values have a grammar of their own. Pure."""
