"""HTTP servers and connections, with their bounds."""
