"""The nodes: what the machines report about themselves, as objects."""
