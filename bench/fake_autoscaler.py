"""The real autoscaler with a runtime that needs no engine: each instance is a listening socket."""

import uvloop

from autoscaler.__main__ import OpenRuntime, serve
from autoscaler.runtime.model import Capacity
from knoll.process import logs
from knoll.process.settings import AutoscalerSettings
from tests.doubles.fake_engine import FakeEngine
from tests.doubles.fake_runtime import FakeRuntime

ENDLESS = Capacity(10_000.0, 1 << 50)


def runtime(_: AutoscalerSettings) -> OpenRuntime:
    return FakeRuntime(FakeEngine(capacity=ENDLESS))


def main() -> None:
    settings = AutoscalerSettings.or_exit()
    logs.set_up(settings.log_level, settings.log_format, "autoscaler")
    uvloop.run(serve(settings, runtime))


if __name__ == "__main__":
    main()
