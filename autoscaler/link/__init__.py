"""Between the leader, which decides, and the nodes, which run instances."""
