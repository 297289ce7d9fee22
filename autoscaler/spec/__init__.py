"""From a Revision to the specification of its instances: containers, variables, volumes."""
