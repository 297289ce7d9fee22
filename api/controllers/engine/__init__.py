"""The loop that runs the reconcilers: cache, queue, execution of their actions."""
