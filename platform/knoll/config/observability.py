"""`config-observability`: request logs and log URLs."""

from dataclasses import dataclass

from knoll.config import request_log
from knoll.config.reader import ConfigMapReader, Data

NAME = "config-observability"


@dataclass(frozen=True, slots=True)
class ObservabilityConfig:
    """Request logs and log URLs."""

    revision_url_template: str = ""
    """`${REVISION_UID}` is replaced by the Revision's uid; empty: no logUrl."""
    request_log_template: request_log.Template = ()
    """Empty for one JSON object per line."""
    enable_request_log: bool = False
    request_log_sample_rate: float = 1.0
    """Fraction of requests that are logged: 0 to 1; an addition of this platform."""
    enable_probe_request_log: bool = False
    """Whether probes are logged: the platform's own, and requests with `User-Agent: kube-probe/…`."""


def parse(data: Data) -> ObservabilityConfig:
    """Raises: InvalidConfigError."""
    read = ConfigMapReader(NAME, data)
    rate = read.number("logging.request-log-sample-rate", 1.0)
    if not 0 <= rate <= 1:
        read.refuse("logging.request-log-sample-rate", f"must be between 0 and 1, not {rate:g}")
        rate = 1.0
    template: request_log.Template = ()
    try:
        template = request_log.parse(read.text("logging.request-log-template", ""))
    except ValueError as problem:
        read.refuse("logging.request-log-template", str(problem))
    config = ObservabilityConfig(
        revision_url_template=read.text("logging.revision-url-template", ""),
        request_log_template=template,
        enable_request_log=read.flag("logging.enable-request-log", False),
        request_log_sample_rate=rate,
        enable_probe_request_log=read.flag("logging.enable-probe-request-log", False),
    )
    read.finish()
    return config


EXPLAINED = """\
# URL of a Revision's logs; ${REVISION_UID} is replaced by its uid. Empty: no logUrl.
logging.revision-url-template: ""
# Template of a request log line, in Knative's syntax. Empty: one JSON object per line.
logging.request-log-template: ""
# Whether requests are logged: by the activator, and in the log of the container queue-proxy of each Pod.
logging.enable-request-log: "false"
# Whether probes are logged: the autoscaler's, and external requests with the user agent of a probe.
logging.enable-probe-request-log: "false"
# Fraction of requests that is logged, between 0 and 1, sampled at random.
logging.request-log-sample-rate: "1"
"""
