"""Dockerfiles for source that has none. Pure: names and texts of files in, the text of a Dockerfile out."""

from knoll.recipes.detect import detect
from knoll.recipes.tree import Recipe, Tree

__all__ = ["Recipe", "Tree", "detect"]
