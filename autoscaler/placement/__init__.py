"""Which node runs an instance."""
