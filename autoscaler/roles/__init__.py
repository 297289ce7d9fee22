"""The two roles of this process, node and leader, and when each of them runs."""
