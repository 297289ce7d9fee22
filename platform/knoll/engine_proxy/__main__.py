"""Entry point of `python -m knoll.engine_proxy`."""

from knoll.engine_proxy.proxy import main

main()
