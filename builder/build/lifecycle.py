"""How a worker changes the state of a build: when it takes the job, and when the build ends. Pure.

The states and their transitions are those of `knoll.messages.builds.BUILD_TRANSITIONS`. Every change of a build's state
in the builder goes through `start` or `finish`, which raise on a transition that the table lacks.
"""

import msgspec

from knoll.messages.builds import BUILD_TRANSITIONS, BuildPhase, BuildProgress

MAX_ATTEMPTS = 2
"""Number of workers that may die in one build: a build that killed its worker would also kill the next ones."""


def start(before: BuildProgress | None, uid: str, now: float) -> BuildProgress | None:
    """Return the progress of a build whose job a worker has just taken.

    Args:
        before: its entry in the table, which may be of an earlier Build of the same name.
        uid: of the Build.
        now: epoch seconds.

    Returns: Running, or Failed when its attempts are exhausted. None when the build is over: RQ may deliver a job
    again after its end.
    """
    if before is None or before.uid != uid:
        before = BuildProgress(uid, BuildPhase.QUEUED)
    if before.phase.is_final:
        return None
    running = BuildProgress(uid, _next(before, BuildPhase.RUNNING), started=now, attempts=before.attempts + 1)
    if running.attempts <= MAX_ATTEMPTS:
        return running
    message = f"the builder died {MAX_ATTEMPTS} times during this build; see its log"
    return finish(running, BuildPhase.FAILED, now, reason="BuilderDied", message=message)


def finish(
    running: BuildProgress,
    phase: BuildPhase,
    now: float,
    *,
    reason: str = "",
    message: str = "",
    digest: str = "",
    size: int = 0,
) -> BuildProgress:
    """Return the progress of a build that has ended.

    Args:
        phase: Succeeded or Failed.
        now: epoch seconds.
        reason, message, digest, size: as in `BuildProgress`.

    Raises: ValueError: the build was over already.
    """
    return msgspec.structs.replace(
        running,
        phase=_next(running, phase),
        reason=reason,
        message=message,
        finished=now,
        digest=digest,
        size=size,
    )


def _next(progress: BuildProgress, phase: BuildPhase) -> BuildPhase:
    if phase not in BUILD_TRANSITIONS[progress.phase]:
        raise ValueError(f"a build that is {progress.phase.value} cannot become {phase.value}")
    return phase
