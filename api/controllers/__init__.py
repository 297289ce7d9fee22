"""The controllers: they create the children of Services and keep every status up to date.

The reconcilers (`service`, `configuration`, `revision`, `route`, `build`) are pure: they take plain values and return a
`ReconcileResult`. In `engine`, `loop` decides when to reconcile, `dispatch` collects the input of a reconciler and
calls it, and `executor` carries out its actions. Nothing here starts containers, proxies requests or serves clients.
"""

from api.controllers.run import run

__all__ = ["run"]
