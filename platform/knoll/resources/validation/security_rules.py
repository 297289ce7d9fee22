"""Validation of security contexts: only settings that instances apply are accepted. Pure.

Instances always run with no-new-privileges and the engine's default seccomp profile. A context that requests less
isolation is rejected, so that no manifest contains a setting that is not applied.
"""

from collections.abc import Iterator

from knoll.config.features import FeaturesConfig
from knoll.resources.models.security_context import Capabilities, PodSecurityContext, SeccompProfile, SecurityContext
from knoll.resources.validation.problems import disallowed, invalid, out_of_bounds
from knoll.resources.validation.unsupported_fields import refused
from knoll.values.errors import FieldError
from knoll.values.numbers import INT32_MAX

ALWAYS_ALLOWED = "NET_BIND_SERVICE"
CAPABILITIES = frozenset({
    "AUDIT_CONTROL", "AUDIT_READ", "AUDIT_WRITE", "BLOCK_SUSPEND", "BPF", "CHECKPOINT_RESTORE", "CHOWN",
    "DAC_OVERRIDE", "DAC_READ_SEARCH", "FOWNER", "FSETID", "IPC_LOCK", "IPC_OWNER", "KILL", "LEASE",
    "LINUX_IMMUTABLE", "MAC_ADMIN", "MAC_OVERRIDE", "MKNOD", "NET_ADMIN", "NET_BIND_SERVICE", "NET_BROADCAST",
    "NET_RAW", "PERFMON", "SETFCAP", "SETGID", "SETPCAP", "SETUID", "SYSLOG", "SYS_ADMIN", "SYS_BOOT", "SYS_CHROOT",
    "SYS_MODULE", "SYS_NICE", "SYS_PACCT", "SYS_PTRACE", "SYS_RAWIO", "SYS_RESOURCE", "SYS_TIME", "SYS_TTY_CONFIG",
    "WAKE_ALARM",
})  # fmt: skip
"""Source: capabilities(7)."""


def security_problems(context: SecurityContext, path: str, features: FeaturesConfig) -> Iterator[FieldError]:
    """Yield all problems of a container's context at `path`."""
    yield from refused(context, path)
    if context.capabilities is not None:
        yield from _capabilities(context.capabilities, f"{path}.capabilities", features)
    if context.allow_privilege_escalation:
        details = "instances cannot gain privileges: use false, or omit the field"
        yield invalid("true", f"{path}.allowPrivilegeEscalation", details)
    yield from _ids(path, ("runAsUser", context.run_as_user), ("runAsGroup", context.run_as_group))
    yield from _seccomp(context.seccomp_profile, f"{path}.seccompProfile")


def pod_security_problems(context: PodSecurityContext, path: str) -> Iterator[FieldError]:
    """Yield all problems of a Pod's context at `path`."""
    yield from refused(context, path)
    groups = [(f"supplementalGroups[{at}]", group) for at, group in enumerate(context.supplemental_groups)]
    yield from _ids(path, ("runAsUser", context.run_as_user), ("runAsGroup", context.run_as_group), *groups)
    if context.fs_group is not None:
        details = "files of volumes keep their owner and group: use supplementalGroups"
        yield FieldError("must not set the field(s)", (f"{path}.fsGroup",), details)
    yield from _seccomp(context.seccomp_profile, f"{path}.seccompProfile")


def _ids(path: str, *numbers: tuple[str, int | None]) -> Iterator[FieldError]:
    for name, value in numbers:
        if value is not None and not 0 <= value <= INT32_MAX:
            yield out_of_bounds(value, 0, INT32_MAX, f"{path}.{name}")


def _capabilities(asked: Capabilities, path: str, features: FeaturesConfig) -> Iterator[FieldError]:
    if features.container_spec_add_capabilities == "Disabled" and set(asked.add) - {ALWAYS_ALLOWED}:
        yield disallowed(f"{path}.add")
    for name, listed in (("add", asked.add), ("drop", asked.drop)):
        for at, capability in enumerate(listed):
            plain = capability.upper().removeprefix("CAP_")
            if plain not in CAPABILITIES and plain != "ALL":
                yield invalid(capability[:100], f"{path}.{name}[{at}]", "is not a Linux capability")


def _seccomp(profile: SeccompProfile | None, path: str) -> Iterator[FieldError]:
    if profile is None:
        return
    if profile.type != "RuntimeDefault":
        details = "instances run with the engine's default profile: use RuntimeDefault, or omit the field"
        yield invalid(profile.type, f"{path}.type", details)
    if profile.localhost_profile:
        yield disallowed(f"{path}.localhostProfile")
