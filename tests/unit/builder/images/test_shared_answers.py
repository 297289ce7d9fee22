"""Look-ups that need the same answer ask once."""

import threading
from concurrent.futures import ThreadPoolExecutor

import pytest

from builder.images.shared_answers import KEPT_SECONDS, PINNED_SECONDS, SharedAnswers


class Clock:
    def __init__(self) -> None:
        self.now = 0.0

    def __call__(self) -> float:
        return self.now


def test_concurrent_look_ups_ask_once() -> None:
    answers, asked, all_wait = SharedAnswers(Clock()), list[str](), threading.Event()

    def ask() -> str:
        asked.append("img")
        all_wait.wait(10)
        return "sha256:a"

    with ThreadPoolExecutor(4) as threads:
        results = [threads.submit(answers.digest, "img", ask) for _ in range(4)]
        all_wait.set()
        assert {result.result(10) for result in results} == {"sha256:a"}
    assert asked == ["img"]


def test_an_answer_is_kept_for_a_moment_and_not_for_another_question() -> None:
    clock = Clock()
    answers = SharedAnswers(clock)
    assert answers.digest(("img", "ann"), lambda: "first") == "first"
    assert answers.digest(("img", "ann"), lambda: "second") == "first"
    assert answers.digest(("img", "bob"), lambda: "other") == "other"
    clock.now += KEPT_SECONDS
    assert answers.digest(("img", "ann"), lambda: "second") == "second"


def test_a_failure_is_not_kept() -> None:
    answers = SharedAnswers(Clock())

    def fail() -> str:
        raise OSError("away")

    with pytest.raises(OSError, match="away"):
        answers.digest("img", fail)
    assert answers.digest("img", lambda: "there") == "there"


def test_an_image_is_pinned_once_until_pins_may_have_gone() -> None:
    clock, pinned = Clock(), list[str]()
    answers = SharedAnswers(clock)

    def pin() -> None:
        pinned.append("a")

    for expected in (1, 1):
        answers.pin("a", pin)
        assert len(pinned) == expected
    answers.forget_pins()
    answers.pin("a", pin)
    clock.now += PINNED_SECONDS
    answers.pin("a", pin)
    assert len(pinned) == 3
