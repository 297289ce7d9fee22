"""Values that all parts share: quantities, durations, names, kinds, errors. Pure."""
