"""Programs in C that run in instances, and compiling them."""
