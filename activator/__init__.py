"""The activator: the data path that every request goes through. Never waits for Redis on a hot request."""
