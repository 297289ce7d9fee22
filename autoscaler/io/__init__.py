"""What the autoscaler receives and publishes."""
