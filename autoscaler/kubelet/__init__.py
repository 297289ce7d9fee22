"""The node: the instances of one machine, and everything that they need. It runs whether or not this process leads."""
