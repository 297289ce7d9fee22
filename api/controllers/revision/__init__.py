"""The reconciler of Revisions, and their garbage collection. Pure."""
