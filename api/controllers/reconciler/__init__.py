"""What all reconcilers share: actions and results, conditions, functions on JSON objects. Pure."""
