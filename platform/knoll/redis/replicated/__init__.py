"""A primary with replicas, one of which may be promoted: sentinels, epochs, acknowledged writes."""
