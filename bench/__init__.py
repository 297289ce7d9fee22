"""Measurements. Each ends with lines `RESULT <name> <value> <unit>`; README.md says how each is taken."""
