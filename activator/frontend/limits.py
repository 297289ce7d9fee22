"""Time limits that client connections of both HTTP versions share."""

HEAD_SECONDS = 30.0
"""How long a head may take to arrive; in HTTP/2 also the preface and a header block."""
IDLE_BEFORE_CLOSE_SECONDS = 1.0
"""Idle time before a draining worker closes a connection: a request may be on its way to a connection just used."""
SEND_SECONDS = 60.0
"""How long a client may read nothing of a response whose request is over, as nginx's `send_timeout`."""
END_SECONDS = 5.0
"""How long a client may take to send END_STREAM after a body of the declared length and the complete response."""
LINGER_BYTES = 16 * 1024 * 1024
"""Bytes read and discarded after the last response of a connection, so that the client gets to read it."""
