"""The reconciler of Revisions, and which of them may be deleted. Pure."""
