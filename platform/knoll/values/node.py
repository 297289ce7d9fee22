"""Nodes. Pure."""

NODE = "knoll"
"""Name of the only node of a platform on one machine."""
ROLE_LABEL = "node-role.kubernetes.io/"
"""Prefix of labels whose rest is a role of the node, as `kubectl get nodes` shows it."""
CONTROL_PLANE = f"{ROLE_LABEL}control-plane"
"""Label of nodes whose autoscaler may lead: managers of the engine's cluster."""
