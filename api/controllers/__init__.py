"""The controllers: they make the children of Services and keep every status true.

Reconcilers (`service`, `configuration`, `revision`, `route`, `build`) are pure: plain values in, an `Outcome` out.
`observe` gathers what they see, `execute` does what they want, `loop` knows when. Nothing here starts a container,
carries a request or answers a client.
"""

from api.controllers.run import run

__all__ = ["run"]
