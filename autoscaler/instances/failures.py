"""Failures of an instance as conditions of its Revision. Pure."""

from autoscaler.node.errors import IsolationError
from autoscaler.runtime.model import ContainerDied, InstanceStartError
from autoscaler.spec.env_sources import MissingSourceError
from knoll.messages.scale import StartFailure
from knoll.values.errors import ImageError, KnollError

UNSCHEDULABLE = "Unschedulable"
FAILED_CREATE = "FailedCreate"
"""A ResourceQuota of the namespace does not allow the instance."""
MISSING_SOURCE = MissingSourceError.reason
UNHEALTHY = "Unhealthy"
"""A probe fails."""
DEADLINE_EXCEEDED = "ProgressDeadlineExceeded"
PULLING, CREATING, INITIALIZING = "PullingImage", "ContainerCreating", "PodInitializing"
"""The step that a slow start is in; not a failure yet."""
EXIT_PREFIX = "Container failed with: "
BEFORE_A_CONTAINER = (
    "ErrImagePull", "ImagePullBackOff", FAILED_CREATE, UNSCHEDULABLE, MISSING_SOURCE, PULLING, CREATING, INITIALIZING,
)  # fmt: skip
"""Reasons of failures before the first container is requested from the engine."""
NOT_OF_A_CONTAINER = (FAILED_CREATE, UNSCHEDULABLE, PULLING, CREATING, INITIALIZING)
"""Reasons for which kubelet writes no Event `Failed`."""


def start_failure(error: KnollError, attempts: int) -> StartFailure:
    """Return a failed start as a condition of its Revision.

    Args:
        attempts: how many failed before this one.
    """
    if isinstance(error, ImageError):
        return StartFailure("ResourcesAvailable", "ErrImagePull" if not attempts else "ImagePullBackOff", str(error))
    if isinstance(error, MissingSourceError):
        # As on Kubernetes, the instance waits for the object until the progress deadline.
        return StartFailure("ResourcesAvailable", MISSING_SOURCE, str(error), final=False)
    if isinstance(error, InstanceStartError):
        code = f"ExitCode{error.exit_code}" if error.exit_code is not None else error.cause
        return StartFailure("ContainerHealthy", code, f"{EXIT_PREFIX}{error}")
    if isinstance(error, IsolationError):
        return StartFailure("ResourcesAvailable", IsolationError.reason, str(error), final=False)
    return StartFailure("ResourcesAvailable", "RuntimeUnavailable", str(error), final=False)


def unhealthy(message: str) -> StartFailure:
    """Return a failing probe of a running container as a condition of its Revision.

    Args:
        message: `Readiness probe failed: …`.
    """
    return StartFailure("ContainerHealthy", UNHEALTHY, message, final=False)


def deadline_exceeded(failure: StartFailure | None, ready: int, initial: int, seconds: float) -> StartFailure:
    """Return an exceeded progress deadline as a condition of its Revision.

    Args:
        failure: of an instance that is not ready; None when there is none.
        ready: instances that are ready.
        initial: instances that the initial scale requires.
        seconds: the deadline, counted from the start or from when an instance last became ready.
    """
    if failure and failure.reason not in (UNHEALTHY, PULLING, CREATING, INITIALIZING):
        return StartFailure(failure.condition, failure.reason, failure.message, final=True)
    message = f"Initial scale was never achieved: no instance became ready within {seconds:g} s"
    if ready:
        message = (
            f"Initial scale was never achieved: {ready} of {initial} instances became ready, and no other within "
            f"{seconds:g} s"
        )
    cause = f": {failure.message}" if failure else ""
    return StartFailure("ResourcesAvailable", DEADLINE_EXCEEDED, f"{message}{cause}", final=True)


def exit_failure(event: ContainerDied, output: str) -> StartFailure:
    """Return a container that ended by itself as a condition of its Revision.

    Args:
        output: the end of its log; may be empty.
    """
    reason = "OOMKilled" if event.oom_killed else f"ExitCode{event.exit_code}"
    text = output or ("memory limit exceeded" if event.oom_killed else "the container wrote no output")
    return StartFailure("ContainerHealthy", reason, f"{EXIT_PREFIX}{text}")
