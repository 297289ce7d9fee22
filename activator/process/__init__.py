"""Worker processes, their supervisor and metrics."""
