"""The builder's processes and the entry point of its jobs."""
