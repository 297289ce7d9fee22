"""`config-defaults`: defaults and limits of Revision templates."""

from dataclasses import dataclass, field

from knoll.config.reader import ConfigMapReader, Data
from knoll.values.names import TemplateValues, render

NAME = "config-defaults"

_RESOURCES = ("cpu", "memory", "ephemeral-storage")


@dataclass(frozen=True, slots=True)
class DefaultsConfig:
    """Defaults and limits of Revisions."""

    revision_timeout_seconds: int = 300
    max_revision_timeout_seconds: int = 600
    revision_response_start_timeout_seconds: int = 300
    revision_idle_timeout_seconds: int = 0
    container_concurrency: int = 0
    container_concurrency_max_limit: int = 1000
    allow_container_concurrency_zero: bool = True
    enable_service_links: bool | None = False
    """None leaves the field unset."""
    user_container_name: str = "user-container"
    """A template over the Service's name, see `names.render`."""
    init_container_name: str = "init-container"
    requests: dict[str, str] = field(default_factory=dict)
    """`cpu`, `memory`, `ephemeral-storage` to their default quantity, if there is one."""
    limits: dict[str, str] = field(default_factory=dict)


def parse(data: Data) -> DefaultsConfig:
    """Raises: InvalidConfigError."""
    read = ConfigMapReader(NAME, data)
    links = read.choice("enable-service-links", "false", ("true", "false", "default"))
    config = DefaultsConfig(
        revision_timeout_seconds=read.whole("revision-timeout-seconds", 300),
        max_revision_timeout_seconds=read.whole("max-revision-timeout-seconds", 600),
        revision_response_start_timeout_seconds=read.whole("revision-response-start-timeout-seconds", 300),
        revision_idle_timeout_seconds=read.whole("revision-idle-timeout-seconds", 0),
        container_concurrency=read.whole("container-concurrency", 0),
        container_concurrency_max_limit=read.whole("container-concurrency-max-limit", 1000, 1),
        allow_container_concurrency_zero=read.flag("allow-container-concurrency-zero", True),
        enable_service_links=None if links == "default" else links == "true",
        user_container_name=read.text("container-name-template", "user-container"),
        init_container_name=read.text("init-container-name-template", "init-container"),
        requests=_resources(read, "request"),
        limits=_resources(read, "limit"),
    )
    _check(config, read)
    read.finish()
    return config


def _resources(read: ConfigMapReader, word: str) -> dict[str, str]:
    quantities = {name: read.quantity(f"revision-{name}-{word}") for name in _RESOURCES}
    return {name: value for name, value in quantities.items() if value}


def _check(config: DefaultsConfig, read: ConfigMapReader) -> None:
    longest = config.max_revision_timeout_seconds
    for key, value in (
        ("revision-timeout-seconds", config.revision_timeout_seconds),
        ("revision-response-start-timeout-seconds", config.revision_response_start_timeout_seconds),
        ("revision-idle-timeout-seconds", config.revision_idle_timeout_seconds),
    ):
        # An unset default of the response start timeout is limited by a shorter timeout.
        if value > longest and (key in read or key == "revision-timeout-seconds"):
            read.refuse(key, f"must not be above max-revision-timeout-seconds, which is {longest}")
    if config.container_concurrency > config.container_concurrency_max_limit:
        limit = config.container_concurrency_max_limit
        read.refuse("container-concurrency", f"must not be above container-concurrency-max-limit, which is {limit}")
    if (
        config.container_concurrency == 0
        and not config.allow_container_concurrency_zero
        and "container-concurrency" in read
    ):
        read.refuse("container-concurrency", "may be 0 only with allow-container-concurrency-zero: true")
    for key, template in (
        ("container-name-template", config.user_container_name),
        ("init-container-name-template", config.init_container_name),
    ):
        try:
            render(template, TemplateValues("name", "namespace"))
        except ValueError as problem:
            read.refuse(key, str(problem))


EXPLAINED = """\
# Default timeoutSeconds of a request.
revision-timeout-seconds: "300"
# Maximum of timeoutSeconds.
max-revision-timeout-seconds: "600"
# Seconds until the first byte of the response; has an effect only if it is below the timeout.
revision-response-start-timeout-seconds: "300"
# Seconds without a byte of the response; 0 is no limit.
revision-idle-timeout-seconds: "0"
# Default resource requests and limits of containers; none unless set, for example:
# revision-cpu-request: "400m"
# revision-memory-request: "100M"
# revision-ephemeral-storage-request: "500M"
# revision-cpu-limit: "1000m"
# revision-memory-limit: "200M"
# revision-ephemeral-storage-limit: "750M"
# Default name of a container; a template over the Service, such as {{.Name}}.
container-name-template: "user-container"
# Default name of an init container.
init-container-name-template: "init-container"
# Default containerConcurrency: concurrent requests per instance; 0 is no limit.
container-concurrency: "0"
# Maximum of containerConcurrency.
container-concurrency-max-limit: "1000"
# Whether containerConcurrency may be 0.
allow-container-concurrency-zero: "true"
# Default of enableServiceLinks: true, false, or default to leave it unset. No effect: services have DNS names instead
# of environment variables with their addresses.
enable-service-links: "false"
"""
