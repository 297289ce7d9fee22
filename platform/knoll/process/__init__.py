"""What every process needs: settings, logs, the admin HTTP server, supervision of child processes."""
