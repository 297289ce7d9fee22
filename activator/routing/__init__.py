"""From a host to a Revision, and the state that all connections of a worker share."""
