"""The store of objects: compare-and-set writes, watches, informers, deletion along owner references."""
