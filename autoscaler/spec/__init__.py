"""From a Revision to what its instances run: containers, variables, volumes."""
