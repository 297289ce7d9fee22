"""What the API, the command line and the builder share about builds: queue, log, progress, recipes."""
