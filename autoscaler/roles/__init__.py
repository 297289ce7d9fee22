"""The two roles of this process, node and leader, and when it has them."""
