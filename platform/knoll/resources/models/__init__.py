"""The kinds as pydantic models. Pure."""
