"""Users, capabilities and system calls of containers."""

from knoll.resources.models.base import Bool, Int64, Model, Refused


class Capabilities(Model):
    """Linux capabilities."""

    add: tuple[str, ...] = ()
    """Capabilities to add; only `NET_BIND_SERVICE`, unless others are enabled in config-features."""
    drop: tuple[str, ...] = ()
    """Capabilities to drop; `ALL` drops all."""


class SeccompProfile(Model):
    """The seccomp profile, which restricts system calls."""

    type: str = ""
    """`RuntimeDefault`, `Unconfined` or `Localhost`."""
    localhost_profile: str = ""
    """File of the profile if the type is `Localhost`."""


class SecurityContext(Model):
    """User, privileges and capabilities of a container."""

    run_as_user: Int64 | None = None
    """User id; by default the image's user."""
    run_as_group: Int64 | None = None
    """Group id; by default the image's group."""
    run_as_non_root: Bool | None = None
    """Whether to refuse to start as user 0."""
    read_only_root_filesystem: Bool | None = None
    """Whether the root file system is read-only."""
    allow_privilege_escalation: Bool | None = None
    """Whether a process can gain more privileges than its parent."""
    capabilities: Capabilities | None = None
    """Linux capabilities to add and drop."""
    seccomp_profile: SeccompProfile | None = None
    """The seccomp profile, which restricts system calls."""
    privileged: Refused = None
    proc_mount: Refused = None
    se_linux_options: Refused = None
    windows_options: Refused = None
    app_armor_profile: Refused = None


class PodSecurityContext(Model):
    """Security settings of all containers of an instance."""

    run_as_user: Int64 | None = None
    """User id."""
    run_as_group: Int64 | None = None
    """Group id."""
    run_as_non_root: Bool | None = None
    """Whether to refuse to start as user 0."""
    fs_group: Int64 | None = None
    """Group that owns the files in volumes."""
    supplemental_groups: tuple[Int64, ...] = ()
    """Supplemental groups."""
    seccomp_profile: SeccompProfile | None = None
    """The seccomp profile, which restricts system calls."""
    fs_group_change_policy: Refused = None
    supplemental_groups_policy: Refused = None
    sysctls: Refused = None
    se_linux_options: Refused = None
    se_linux_change_policy: Refused = None
    windows_options: Refused = None
    app_armor_profile: Refused = None
