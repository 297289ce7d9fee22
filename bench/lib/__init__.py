"""Shared parts of measurements: processes on separate cores, load, and the format of results."""
