"""Users, capabilities and system calls of containers."""

from knoll.resources.models.base import Bool, Int64, Model, Refused


class Capabilities(Model):
    """Linux capabilities."""

    add: tuple[str, ...] = ()
    """Capabilities to give; `NET_BIND_SERVICE` only, unless turned on in config-features."""
    drop: tuple[str, ...] = ()
    """Capabilities to take away; `ALL` is all."""


class SeccompProfile(Model):
    """Which system calls are allowed."""

    type: str = ""
    """`RuntimeDefault`, `Unconfined` or `Localhost`."""
    localhost_profile: str = ""
    """File of the profile when the type is `Localhost`."""


class SecurityContext(Model):
    """Who a container runs as and what it may do."""

    run_as_user: Int64 | None = None
    """User id; the image's user when absent."""
    run_as_group: Int64 | None = None
    """Group id; the image's group when absent."""
    run_as_non_root: Bool | None = None
    """Refuse to start as user 0."""
    read_only_root_filesystem: Bool | None = None
    """Make the image's files read-only."""
    allow_privilege_escalation: Bool | None = None
    """Whether a program may gain more rights than its parent."""
    capabilities: Capabilities | None = None
    """Linux capabilities to give and take."""
    seccomp_profile: SeccompProfile | None = None
    """System calls that are allowed."""
    privileged: Refused = None
    proc_mount: Refused = None
    se_linux_options: Refused = None
    windows_options: Refused = None
    app_armor_profile: Refused = None


class PodSecurityContext(Model):
    """Who all containers of an instance run as."""

    run_as_user: Int64 | None = None
    """User id."""
    run_as_group: Int64 | None = None
    """Group id."""
    run_as_non_root: Bool | None = None
    """Refuse to start as user 0."""
    fs_group: Int64 | None = None
    """Group that owns the files of volumes."""
    supplemental_groups: tuple[Int64, ...] = ()
    """Further groups."""
    seccomp_profile: SeccompProfile | None = None
    """System calls that are allowed."""
    fs_group_change_policy: Refused = None
    supplemental_groups_policy: Refused = None
    sysctls: Refused = None
    se_linux_options: Refused = None
    se_linux_change_policy: Refused = None
    windows_options: Refused = None
    app_armor_profile: Refused = None
