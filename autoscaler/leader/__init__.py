"""The leader's loop over all Revisions."""
