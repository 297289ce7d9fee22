"""Reconcilers of Routes and DomainMappings: traffic, rollouts, rollbacks, hosts. Pure."""
