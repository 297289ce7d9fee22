"""One instance, from its start to its removal."""
