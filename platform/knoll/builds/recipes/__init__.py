"""Dockerfiles for source that has none. Pure: names and texts of files in, the text of a Dockerfile out."""

from knoll.builds.recipes.detect import detect
from knoll.builds.recipes.tree import Recipe, Tree

__all__ = ["Recipe", "Tree", "detect"]
