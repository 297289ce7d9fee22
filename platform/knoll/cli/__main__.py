"""`python -m knoll.cli`."""

from knoll.cli import main

main(prog_name="knoll")
