"""Instances on a container engine: the protocol that the autoscaler uses, and its driver for Docker.

Decides nothing about the number of instances; `autoscaler.revisions` does. Probes are in `autoscaler.probes`.
"""
