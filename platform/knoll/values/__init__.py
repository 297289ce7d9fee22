"""Values that all packages share: quantities, durations, names, kinds, errors. Pure."""
