"""Instances on a container engine: what the autoscaler asks for, Docker's way of doing it, and a fake for tests.

Decides nothing about how many instances there are; that is the loop's. Probes are `autoscaler.probes`.
"""
