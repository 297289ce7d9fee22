"""A primary with replicas, of which another one may be promoted: sentinels, epochs, acknowledged writes."""
