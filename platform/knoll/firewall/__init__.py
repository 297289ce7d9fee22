"""The platform's packet filter: what instances and builds reach by address.

A process of its own, in the network namespace of the machine and with the right NET_ADMIN alone. It keeps one nftables
table of the family `inet` and one of the family `bridge`, takes its policy from the autoscaler over a Unix socket, and
puts the tables back when they vanish. `policy` is what it receives, `ruleset` (pure) makes the rules of it, `nft` hands
them to the kernel, `keeper` keeps them there.
"""
