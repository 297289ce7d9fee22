"""Tokens, kubeconfigs, credentials for registries and for Redis."""
