"""Messages between the processes, sent through Redis: routing, endpoints, scale, reports, builds. Pure."""
