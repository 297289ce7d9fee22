"""One machine among several: its certificate, how it joins, and its connections to the others."""
