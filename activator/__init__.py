"""The activator: the data path of every request. No request waits for Redis."""
