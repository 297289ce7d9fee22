"""How a worker changes the state of a build."""

import pytest

from builder.build.lifecycle import MAX_ATTEMPTS, finish, start
from knoll.messages.builds import BUILD_TRANSITIONS, BuildPhase, BuildProgress

NOW = 1000.0
FINAL = (BuildPhase.SUCCEEDED, BuildPhase.FAILED)


@pytest.mark.parametrize("following", BuildPhase)
@pytest.mark.parametrize("phase", BuildPhase)
def test_a_build_ends_only_as_the_table_allows(phase: BuildPhase, following: BuildPhase) -> None:
    progress = BuildProgress("u", phase, attempts=1)
    if following in BUILD_TRANSITIONS[phase]:
        assert finish(progress, following, NOW).phase is following
    else:
        with pytest.raises(ValueError, match=f"{phase.value} cannot become {following.value}"):
            finish(progress, following, NOW)


def test_the_first_worker_starts_a_build() -> None:
    assert start(None, "u", NOW) == BuildProgress("u", BuildPhase.RUNNING, started=NOW, attempts=1)


def test_progress_of_an_earlier_build_of_the_same_name_is_ignored() -> None:
    earlier = BuildProgress("other", BuildPhase.SUCCEEDED, attempts=2)
    assert start(earlier, "u", NOW) == BuildProgress("u", BuildPhase.RUNNING, started=NOW, attempts=1)


def test_a_build_whose_worker_died_is_started_again_without_its_old_step() -> None:
    before = BuildProgress("u", BuildPhase.RUNNING, step="3/7 RUN make", started=1.0, attempts=1)
    assert start(before, "u", NOW) == BuildProgress("u", BuildPhase.RUNNING, started=NOW, attempts=2)


def test_a_build_that_killed_too_many_workers_fails() -> None:
    before = BuildProgress("u", BuildPhase.RUNNING, started=1.0, attempts=MAX_ATTEMPTS)
    progress = start(before, "u", NOW)
    assert progress is not None
    assert (progress.phase, progress.reason, progress.finished) == (BuildPhase.FAILED, "BuilderDied", NOW)
    assert f"died {MAX_ATTEMPTS} times" in progress.message


@pytest.mark.parametrize("phase", FINAL)
def test_a_build_that_is_over_is_not_started_again(phase: BuildPhase) -> None:
    assert start(BuildProgress("u", phase, attempts=1), "u", NOW) is None


def test_the_end_of_a_build_keeps_when_it_started() -> None:
    running = BuildProgress("u", BuildPhase.RUNNING, started=1.0, attempts=1)
    assert finish(running, BuildPhase.SUCCEEDED, NOW, digest="r@sha256:1", size=7) == BuildProgress(
        "u", BuildPhase.SUCCEEDED, digest="r@sha256:1", size=7, started=1.0, finished=NOW, attempts=1
    )
