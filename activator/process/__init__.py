"""The processes of the data path."""
