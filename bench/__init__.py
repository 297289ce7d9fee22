"""Measurements. Each ends with lines `RESULT <name> <value> <unit>`; README.md describes them."""
