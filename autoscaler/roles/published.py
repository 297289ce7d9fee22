"""Reads what the last leader published about the instances, for a node that adopts them."""

from autoscaler.kubelet.adoption import LastPublished
from autoscaler.leader.leader import PublishedTables
from knoll.concurrency.backoff import until_available


async def last_published(tables: PublishedTables) -> LastPublished:
    """Read the tables; waits while Redis is unavailable."""
    _, endpoints = await until_available(tables.endpoints.snapshot)
    _, instances = await until_available(tables.instances.snapshot)
    return LastPublished(
        {endpoint.id: endpoint for _, entry in endpoints.values() for endpoint in entry.endpoints},
        {row.name: row for _, entry in instances.values() for row in entry.instances},
    )
