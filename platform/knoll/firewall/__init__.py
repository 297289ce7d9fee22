"""The platform's packet filter: which addresses instances and builds can reach.

It is a separate process in the host's network namespace, with no capability but NET_ADMIN. It maintains one nftables
table of the family `inet` and one of the family `bridge`, receives its policy from the autoscaler over a Unix socket,
and restores the tables if they are removed. `policy` is what it receives, `ruleset` (pure) turns it into rules, `nft`
passes them to the kernel, and `keeper` keeps them in place.
"""
