"""The latest request-log lines of each instance, for `kubectl logs POD -c queue-proxy`."""

import asyncio
import time
from collections import OrderedDict, deque
from collections.abc import Callable, Collection

import msgspec
import structlog

from knoll.concurrency.backoff import Backoff
from knoll.messages.request_log import FOLLOW_SECONDS, Answer, LogLine, Question
from knoll.redis import keys
from knoll.redis.client import RedisClient
from knoll.values.errors import StoreUnavailableError

log = structlog.get_logger()

LINES_BYTES = 64 * 1024
"""Limit of the text that is kept for one instance."""
INSTANCES = 256
"""Limit of instances whose lines are kept: those with the latest lines."""
GATHER_SECONDS = 0.25
"""How long new lines are collected before they are sent."""


class RecentLines:
    """The latest lines of each instance. Bounded: the oldest lines and the least recent instances are dropped. Pure."""

    def __init__(self, most_bytes: int = LINES_BYTES, most_instances: int = INSTANCES) -> None:
        self._most_bytes, self._most_instances = most_bytes, most_instances
        self._lines: OrderedDict[str, deque[LogLine]] = OrderedDict()
        self._sizes: dict[str, int] = {}

    def add(self, instance: str, line: LogLine) -> None:
        """Args: instance: `namespace/name`."""
        lines = self._lines.setdefault(instance, deque())
        self._lines.move_to_end(instance)
        lines.append(line)
        self._sizes[instance] = self._sizes.get(instance, 0) + len(line.text)
        while self._sizes[instance] > self._most_bytes and len(lines) > 1:
            self._sizes[instance] -= len(lines.popleft().text)
        if len(self._lines) > self._most_instances:
            oldest, _ = self._lines.popitem(last=False)
            del self._sizes[oldest]

    def of(self, instance: str) -> tuple[LogLine, ...]:
        """Return the lines of an instance, oldest first."""
        return tuple(self._lines.get(instance, ()))


class Readers:
    """Readers that follow the log of an instance, and when they expire. Pure."""

    def __init__(self) -> None:
        self._instances: dict[str, str] = {}
        self._until: dict[str, float] = {}

    def asked(self, question: Question, now: float) -> bool:
        """Register a question; returns whether it is a new one."""
        new = question.id not in self._instances
        if question.follow:
            self._instances[question.id] = question.instance
            self._until[question.id] = now + FOLLOW_SECONDS
        return new

    def of(self, instance: str, now: float) -> Collection[str]:
        """Return the ids of questions about an instance; drops those that were not repeated in time."""
        for question in [question for question, until in self._until.items() if until < now]:
            del self._until[question], self._instances[question]
        return [question for question, about in self._instances.items() if about == instance]


class RequestLog:
    """Keeps lines, and answers questions about them."""

    def __init__(self, redis: RedisClient, clock: Callable[[], float] = time.time) -> None:
        """Args: clock: epoch seconds."""
        self._redis, self._clock = redis, clock
        self._recent, self._readers = RecentLines(), Readers()
        self._news: dict[str, list[LogLine]] = {}  # by question
        self._has_news = asyncio.Event()

    def keep(self, instance: str, line: bytes) -> None:
        """A request to an instance has ended. Args: instance: `namespace/name`."""
        kept = LogLine(self._clock(), line.decode(errors="replace"))
        self._recent.add(instance, kept)
        for question in self._readers.of(instance, kept.at):
            self._news.setdefault(question, []).append(kept)
            self._has_news.set()

    async def run(self) -> None:
        """Answer until cancelled; reconnects while Redis is unavailable."""
        async with asyncio.TaskGroup() as tasks:
            tasks.create_task(self._answer())
            tasks.create_task(self._send_news())

    async def _answer(self) -> None:
        backoff = Backoff()
        while True:
            try:
                async with self._redis.subscribe(keys.REQUEST_LOG_QUESTIONS) as channel:
                    backoff.reset()
                    while True:
                        message = await channel.next()
                        if message is not None:
                            await self._take(message[1])
            except StoreUnavailableError:
                await backoff.wait()

    async def _take(self, data: bytes) -> None:
        try:
            question = msgspec.json.decode(data, type=Question)
        except msgspec.MsgspecError as error:
            log.warning("message rejected", channel=keys.REQUEST_LOG_QUESTIONS, error=str(error))
            return
        if self._readers.asked(question, self._clock()):
            await self._send(question.id, Answer(self._recent.of(question.instance), first=True))

    async def _send_news(self) -> None:
        while True:
            await self._has_news.wait()
            await asyncio.sleep(GATHER_SECONDS)
            self._has_news.clear()
            news, self._news = self._news, {}
            for question, lines in news.items():
                await self._send(question, Answer(tuple(lines), first=False))

    async def _send(self, question: str, answer: Answer) -> None:
        try:
            await self._redis.execute("PUBLISH", keys.request_log_answers(question), msgspec.json.encode(answer))
        except StoreUnavailableError as error:
            log.debug("request log not sent", error=str(error))
