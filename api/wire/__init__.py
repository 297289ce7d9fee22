"""Requests and responses as bytes: bodies, content negotiation, selectors, tables, `Status` objects."""
