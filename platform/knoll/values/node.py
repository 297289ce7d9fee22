"""The one node that everything runs on, in Kubernetes' words. Pure."""

NODE = "knoll"
"""Name of the node: the engine."""
