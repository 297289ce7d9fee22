"""What the doctor reports about user namespaces and of the limits that instances share."""

import pytest

from knoll.cli import isolation


@pytest.mark.parametrize(
    ("options", "expected", "advised"),
    [
        (["name=seccomp,profile=builtin", "name=userns"], "mapped to unprivileged users", False),
        (["name=rootless", "name=seccomp,profile=builtin"], "without root", False),
        (["name=apparmor", "name=seccomp,profile=builtin"], "root in an instance is root on the machine", True),
        (None, "root in an instance is root on the machine", True),
    ],
)
def test_user_namespaces(options: list[str] | None, expected: str, advised: bool) -> None:
    state, fix = isolation.user_namespaces({"SecurityOptions": options})
    assert expected in state
    assert ("userns-remap" in fix) is advised


@pytest.mark.parametrize(
    ("limit", "mapped", "advised"), [(128, False, True), (128, True, False), (8192, False, False), (None, False, False)]
)
def test_limits_that_instances_share(limit: int | None, mapped: bool, advised: bool) -> None:
    _, mend = isolation.inotify(limit, mapped)
    assert ("sysctl fs.inotify.max_user_instances=" in mend) is advised
