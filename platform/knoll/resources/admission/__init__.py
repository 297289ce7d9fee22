"""From the body of a write to the stored object: parsing, conversion, defaults, validation. Pure."""
