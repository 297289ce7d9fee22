"""What every process needs: settings, logs, the operators' HTTP server, supervision of child processes."""
