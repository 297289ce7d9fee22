"""From zero to the first byte, beside a plain `docker run` of the same image. See coldstart.md for what is measured.

`python -m bench.coldstart` measures a platform of its own through its activator, `--url` a running one, `--runtime` the
runtime without any.
"""

import argparse
import asyncio
import tempfile
from pathlib import Path

from bench import coldstart_platform, coldstart_runtime
from bench.coldstart_parts import AT_ONCE, Samples, image, report
from bench.lib.stopping import stoppable
from knoll.process.settings import AutoscalerSettings
from tests.e2e.platform import running


def main() -> None:
    parser = argparse.ArgumentParser(prog="bench.coldstart", description=__doc__)
    parser.add_argument("--rounds", type=int, default=15, help="measured rounds, with one start of each kind")
    parser.add_argument("--wakes", type=int, default=3, help=f"rounds of {AT_ONCE} concurrent starts; 0 for none")
    parser.add_argument(
        "--warm", type=int, default=AutoscalerSettings.read().warm_sandboxes, help="limit of the warm sandboxes"
    )
    parser.add_argument(
        "--only", choices=("armed", "unarmed"), help="measure the platform with, or without, armed instances only"
    )
    parser.add_argument("--runtime", action="store_true", help="measure the runtime, without a platform")
    parser.add_argument("--url", help="activator of a running platform, such as http://127.0.0.1:8080")
    parser.add_argument("--api", default="http://127.0.0.1:8001", help="API of that platform")
    options = parser.parse_args()
    with stoppable(), image():
        report(_measured(options))


def _measured(options: argparse.Namespace) -> Samples:
    if options.runtime:
        return asyncio.run(coldstart_runtime.measure(options.rounds, options.wakes, options.warm))
    if options.url:
        return asyncio.run(coldstart_platform.measure(options.url, options.api, options.rounds, options.wakes))
    samples: Samples = {}
    for armed in (True, False):
        if options.only == ("unarmed" if armed else "armed"):
            continue
        bound = str(AT_ONCE + 2 if armed else 0)
        with (
            tempfile.TemporaryDirectory(prefix="knoll-bench-") as folder,
            running(Path(folder), KNOLL_ARMED_INSTANCES=bound) as platform,
        ):
            measured = asyncio.run(
                coldstart_platform.measure(platform.gateway, platform.api, options.rounds, options.wakes, armed=armed)
            )
        for kind, values in measured.items():
            samples.setdefault(kind, []).extend(values)
    return samples


if __name__ == "__main__":
    main()
