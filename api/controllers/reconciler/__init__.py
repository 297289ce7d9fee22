"""What all reconcilers use: actions, conditions, JSON objects. Pure."""
