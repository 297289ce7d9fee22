"""Reading, writing and watching objects over HTTP."""
