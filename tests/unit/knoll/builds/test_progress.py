"""How far a build is, by what BuildKit prints."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from knoll.builds.progress import Steps

OUTPUT = """#0 building with "default" instance using docker driver

#1 [internal] load build definition from Dockerfile
#1 transferring dockerfile: 167B done
#1 DONE 0.0s

#4 [build 1/3] FROM docker.io/library/golang:1.24
#4 sha256:aa11 10.49MB / 29.15MB 1.2s
#4 DONE 2.0s

#6 [build 2/3] COPY . .
#6 CACHED

#8 [build 3/3] RUN go build
#8 0.133 [out 1/9] not a step
#8 DONE 0.5s

#10 [stage-1 1/1] COPY --from=build /app /
#10 DONE 0.0s

#11 exporting to image
#11 exporting layers done
#11 DONE 0.0s
"""


def after(lines: list[str]) -> Steps:
    steps = Steps()
    for line in lines:
        steps.read(line)
    return steps


def test_all_steps_are_over_at_the_end() -> None:
    steps = after(OUTPUT.splitlines())
    assert (steps.done, steps.total) == (5, 5)


@pytest.mark.parametrize(
    ("until", "description"),
    [
        ("#1 [internal]", ""),
        ("#4 [build 1/3]", "1/3 FROM docker.io/library/golang:1.24"),
        ("#4 sha256", "1/3 FROM docker.io/library/golang:1.24 (10.49MB of 29.15MB)"),
        ("#6 [build", "2/3 COPY . ."),
        ("#8 0.133", "3/3 RUN go build"),
        ("#10 [stage-1", "4/4 COPY --from=build /app /"),
        ("#11 exporting layers", "5/5 exporting to image"),
    ],
)
def test_the_step_at_work_is_named(until: str, description: str) -> None:
    lines = OUTPUT.splitlines()
    last = next(index for index, line in enumerate(lines) if line.startswith(until))
    assert after(lines[: last + 1]).description == description


def test_stages_side_by_side_are_counted_together() -> None:
    steps = after(["#1 [a 1/2] FROM x", "#2 [b 1/3] FROM y", "#1 DONE 0.1s", "#1 [a 1/2] FROM x"])
    assert (steps.done, steps.total) == (1, 5)


def test_a_step_without_a_stage_counts() -> None:
    steps = after(["#5 [2/4] RUN x", "#5 ERROR: process did not complete"])
    assert (steps.done, steps.total) == (1, 4)


@given(st.lists(st.one_of(st.text(max_size=60), st.sampled_from(OUTPUT.splitlines())), max_size=60))
def test_any_output_is_read_and_never_more_is_done_than_begun(lines: list[str]) -> None:
    steps = after(lines)
    begun = sum(line.startswith("#") and ("/" in line or "exporting" in line) for line in lines)
    assert 0 <= steps.done <= begun
