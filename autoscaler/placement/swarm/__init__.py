"""Placement by Docker Swarm: a small service for each place reserves what an instance requests."""
