"""The scale of one Revision."""
