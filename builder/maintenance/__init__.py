"""Clean-up of images and caches, and recovery of jobs."""
