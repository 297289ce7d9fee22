"""What the autoscaler receives, publishes and shows."""
