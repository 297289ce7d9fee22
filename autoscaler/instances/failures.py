"""What went wrong with an instance, as a condition of its Revision. Pure."""

from autoscaler.node.isolation import IsolationError
from autoscaler.runtime.protocol import ContainerDied, InstanceStartError
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
"""What a start that takes long waits for; nothing is wrong yet."""
EXIT_PREFIX = "Container failed with: "
BEFORE_A_CONTAINER = (
    "ErrImagePull", "ImagePullBackOff", FAILED_CREATE, UNSCHEDULABLE, MISSING_SOURCE, PULLING, CREATING, INITIALIZING,
)  # fmt: skip
"""Reasons of failures that keep the engine from being asked for a container at all."""
NOT_OF_A_CONTAINER = (FAILED_CREATE, UNSCHEDULABLE, PULLING, CREATING, INITIALIZING)
"""Reasons for which kubelet writes no Event `Failed`."""


def failure_of(error: KnollError, tries: int) -> StartFailure:
    """A failed start as a condition of its Revision.

    Args:
        tries: how many failed before it.
    """
    if isinstance(error, ImageError):
        return StartFailure("ResourcesAvailable", "ErrImagePull" if not tries else "ImagePullBackOff", str(error))
    if isinstance(error, MissingSourceError):
        # As Kubernetes: it is waited for, until the progress deadline.
        return StartFailure("ResourcesAvailable", MISSING_SOURCE, str(error), final=False)
    if isinstance(error, InstanceStartError):
        code = f"ExitCode{error.exit_code}" if error.exit_code is not None else error.cause
        return StartFailure("ContainerHealthy", code, f"{EXIT_PREFIX}{error}")
    if isinstance(error, IsolationError):
        return StartFailure("ResourcesAvailable", IsolationError.reason, str(error), final=False)
    return StartFailure("ResourcesAvailable", "RuntimeUnavailable", str(error), final=False)


def unhealthy(message: str) -> StartFailure:
    """A container that runs and does not pass its probe, as a condition of its Revision.

    Args:
        message: `Readiness probe failed: …`.
    """
    return StartFailure("ContainerHealthy", UNHEALTHY, message, final=False)


def not_in_time(failure: StartFailure | None, ready: int, initial: int, seconds: float) -> StartFailure:
    """A progress deadline that is over, as a condition of its Revision.

    Args:
        failure: of an instance that is not ready; None when nothing is known.
        ready: instances that are ready.
        initial: instances that were to be.
        seconds: the deadline, from the start or from when an instance became ready last.
    """
    if failure and failure.reason not in (UNHEALTHY, PULLING, CREATING, INITIALIZING):
        return StartFailure(failure.condition, failure.reason, failure.message, final=True)
    message = f"no instance became ready within {seconds:g} s"
    if ready:
        message = f"{ready} of {initial} instances became ready within {seconds:g} s of the last progress"
    why = f": {failure.message}" if failure else ""
    return StartFailure("ResourcesAvailable", DEADLINE_EXCEEDED, f"{message}{why}", final=True)


def failure_of_end(event: ContainerDied, words: str) -> StartFailure:
    """A container that ended by itself as a condition of its Revision.

    Args:
        words: the last of its output.
    """
    reason = "OOMKilled" if event.oom_killed else f"ExitCode{event.exit_code}"
    text = words or ("it used more memory than its limit" if event.oom_killed else "it ended without a word")
    return StartFailure("ContainerHealthy", reason, f"{EXIT_PREFIX}{text}")
