"""What clients can discover: groups, resources, OpenAPI documents."""
