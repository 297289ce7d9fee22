"""EngineImages: look-ups, pins, access of namespaces, layers."""
