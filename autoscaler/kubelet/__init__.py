"""The node role: the instances of one machine and what they need. It runs whether or not this process leads."""
