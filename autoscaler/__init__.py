"""The autoscaler: how many instances a revision runs; starts, probes and stops them. Never writes objects."""
