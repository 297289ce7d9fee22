"""What the processes tell each other through Redis: routing, endpoints, scale, reports, builds. Pure."""
