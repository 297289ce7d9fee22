"""Validation of parts of objects; each function returns all problems. Pure."""
