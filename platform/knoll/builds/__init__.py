"""Builds as the API, the command line and the builder share them: queue, log, progress, recipes."""
