"""What the activator exchanges with other processes through Redis, and the log of requests."""
