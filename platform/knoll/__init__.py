"""The library that all processes of Knoll use.

It holds what more than one process needs: the resources and their rules, the store, the tables by which processes
tell each other what they know, settings, errors and the command line. It starts nothing by being imported.
"""

__version__ = "0.2.0"
"""Version of the platform, as in the changelog."""
