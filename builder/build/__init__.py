"""One build: from a Build object to an image."""
