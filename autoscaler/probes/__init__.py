"""Probes with Kubernetes' semantics, and Knative's eager ones at the start.

`spec` and `schedule` do no I/O; `checks` carries out one check; `prober` probes one instance. Nothing here starts or
stops a container; the prober only reports.
"""
