"""Probes with Kubernetes' semantics, and Knative's eager ones at the start.

`spec` and `schedule` are pure; `checks` asks the container; `prober` follows one instance. Nothing here starts or stops
a container: it says what it saw.
"""
