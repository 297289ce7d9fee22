"""`config-observability`: logs of requests and where logs are shown."""

from dataclasses import dataclass

from knoll.config.reader import Data, Reader

NAME = "config-observability"


@dataclass(frozen=True, slots=True)
class ObservabilityConfig:
    """Logs of requests and where logs are shown."""

    revision_url_template: str = ""
    """`${REVISION_UID}` stands for the Revision's uid; empty: no logUrl."""
    request_log_template: str = ""
    """Empty: Knoll's own JSON line."""
    enable_request_log: bool = False
    enable_probe_request_log: bool = False


def parse(data: Data) -> ObservabilityConfig:
    """Raises: InvalidConfigError."""
    read = Reader(NAME, data)
    config = ObservabilityConfig(
        revision_url_template=read.text("logging.revision-url-template", ""),
        request_log_template=read.text("logging.request-log-template", ""),
        enable_request_log=read.flag("logging.enable-request-log", False),
        enable_probe_request_log=read.flag("logging.enable-probe-request-log", False),
    )
    read.finish()
    return config


EXPLAINED = """\
# Address of a Revision's log; ${REVISION_UID} stands for its uid. Empty: none is shown.
logging.revision-url-template: ""
# A line of the log of requests as a template. Empty: one JSON object.
logging.request-log-template: ""
# Whether requests are logged.
logging.enable-request-log: "false"
# Whether probes are logged as well.
logging.enable-probe-request-log: "false"
"""
