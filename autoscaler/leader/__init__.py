"""Leading: the loops over all Revisions."""
