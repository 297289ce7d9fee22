"""The four kinds of patches: JSON, merge, strategic merge, server-side apply. Pure."""
