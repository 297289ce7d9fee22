"""`make bench`: every measurement, one after the other, and at the end their `RESULT` lines together.

Nothing else should run meanwhile: of two cores, one runs the load and the other the measured process.
"""

import argparse
import re
import subprocess
import sys

from bench.lib.stopping import stoppable


def measure(results: list[str], *arguments: str) -> None:
    """Run one measurement, show its output, and append its results to `results`."""
    print(f"== python -m {' '.join(arguments)}", flush=True)
    with subprocess.Popen([sys.executable, "-m", *arguments], stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        try:
            for line in process.stdout:
                if re.match(r"RESULT \S+ \S+ \S+$", line):
                    results.append(line)
                else:
                    print(line, end="", flush=True)
        except KeyboardInterrupt:
            process.terminate()
            process.wait()  # it cleans up
            raise
    if process.returncode:
        sys.exit(f"python -m {' '.join(arguments)} failed")


def main() -> None:
    parser = argparse.ArgumentParser(prog="bench", description=__doc__)
    parser.add_argument("--rounds", type=int, default=5, help="rounds of each measurement (%(default)s)")
    parser.add_argument("--only", default="", help="measurements of the data path, see bench.dataplane (all)")
    options = parser.parse_args()
    rounds = str(options.rounds)
    results: list[str] = []
    only = ["--only", options.only] if options.only else []
    with stoppable():
        measure(results, "bench.dataplane", "--rounds", rounds, *only)
        measure(results, "bench.coldstart", "--rounds", rounds, "--wakes", "2")
        measure(results, "bench.build", "--rounds", rounds)
        measure(results, "bench.scale")
        measure(results, "bench.scale_cost")
        measure(results, "bench.scale_rate")
    print("".join(results), end="")


if __name__ == "__main__":
    main()
