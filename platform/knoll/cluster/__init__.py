"""One of several machines: its certificate, how it joins, and its connections to the others."""
