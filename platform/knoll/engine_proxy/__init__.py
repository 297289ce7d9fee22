"""A filter in front of the container engine's socket: `python -m knoll.engine_proxy`."""
