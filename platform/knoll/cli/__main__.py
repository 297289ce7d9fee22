"""Entry point of `knoll` and `python -m knoll.cli`."""

from knoll.process import footprint


def run() -> None:
    # httpx would load them for HTTP/2 and for a command of its own: a tenth of what a short command takes.
    footprint.block_imports("h2", "pygments")
    from knoll.cli import main

    main(prog_name="knoll")


if __name__ == "__main__":
    run()
