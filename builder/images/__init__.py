"""Images: look-ups, pins, access of namespaces, layers."""
