"""The reconciler of Builds. Pure."""
