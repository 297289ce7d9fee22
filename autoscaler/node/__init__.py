"""Services of one machine for its instances: network isolation, images."""
