"""Generates Dockerfiles for source that has none. Pure: from names and contents of files to a Dockerfile."""

from knoll.builds.recipes.detect import detect
from knoll.builds.recipes.tree import Recipe, Tree

__all__ = ["Recipe", "Tree", "detect"]
