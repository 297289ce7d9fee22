"""Rules for parts of objects; each function returns every problem it finds. Pure."""
