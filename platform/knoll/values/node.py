"""The node that everything runs on. Pure."""

NODE = "knoll"
"""Name of the node: the engine."""
