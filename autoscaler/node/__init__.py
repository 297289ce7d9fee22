"""What one machine does for its instances: isolation, images."""
