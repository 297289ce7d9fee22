"""The request log of an instance, collected from all activators."""

import contextlib
import time
import uuid
from collections.abc import AsyncGenerator, Awaitable, Callable, Iterable
from datetime import UTC, datetime

import msgspec

from knoll.messages.request_log import FOLLOW_SECONDS, Answer, LogLine, Question
from knoll.redis import keys
from knoll.redis.client import RedisClient
from knoll.redis.subscriptions import Subscription
from knoll.values.errors import StoreUnavailableError
from knoll.values.log_options import LogOptions

ANSWER_SECONDS = 2.0
"""How long to wait for activators; those that have not answered by then are left out."""
ASK_SECONDS = FOLLOW_SECONDS / 3


async def read(
    redis: RedisClient, instance: str, options: LogOptions, is_over: Callable[[], Awaitable[bool]]
) -> AsyncGenerator[bytes, None]:
    """Yield the lines of an instance that activators still have; with `follow`, also later ones.

    Args:
        instance: `namespace/name`.
        is_over: called repeatedly while following; returns whether to end.
    """
    texts = _texts(redis, instance, options, is_over)
    left = options.limit_bytes
    async with contextlib.aclosing(texts):
        async for text in texts:
            yield text if left is None else text[:left]
            if left is not None:
                left -= len(text)
                if left <= 0:
                    return


async def _texts(
    redis: RedisClient, instance: str, options: LogOptions, is_over: Callable[[], Awaitable[bool]]
) -> AsyncGenerator[bytes, None]:
    question = Question(uuid.uuid4().hex, instance, options.follow)
    try:
        async with redis.subscribe(keys.request_log_answers(question.id)) as channel:
            for line in chosen(await _first_answers(redis, channel, question), options):
                yield printed(line, options)
            asked = time.monotonic()
            while options.follow:
                answer = await _next_answer(channel, ASK_SECONDS)
                for line in answer.lines if answer is not None else ():
                    yield printed(line, options)
                if time.monotonic() - asked >= ASK_SECONDS:
                    if await is_over():
                        return
                    await _ask(redis, question)
                    asked = time.monotonic()
    except StoreUnavailableError as error:
        yield f"the log was interrupted: {error or type(error).__name__}\n".encode()


async def _first_answers(redis: RedisClient, channel: Subscription, question: Question) -> list[LogLine]:
    """Lines of all activators that are subscribed, as soon as the last of them has answered."""
    missing, lines = await _ask(redis, question), list[LogLine]()
    deadline = time.monotonic() + ANSWER_SECONDS
    while missing > 0 and (left := deadline - time.monotonic()) > 0:
        answer = await _next_answer(channel, left)
        if answer is not None:
            lines += answer.lines
            missing -= answer.first
    return lines


async def _ask(redis: RedisClient, question: Question) -> int:
    """Publish a question; returns how many activators received it."""
    return int(await redis.execute("PUBLISH", keys.REQUEST_LOG_QUESTIONS, msgspec.json.encode(question)))


async def _next_answer(channel: Subscription, seconds: float) -> Answer | None:
    message = await channel.next(seconds)
    return None if message is None else msgspec.json.decode(message[1], type=Answer)


def chosen(lines: Iterable[LogLine], options: LogOptions) -> list[LogLine]:
    """The requested lines, oldest first. Pure."""
    ordered = sorted((line for line in lines if options.since is None or line.at >= options.since), key=lambda x: x.at)
    return ordered if options.tail is None else ordered[max(0, len(ordered) - options.tail) :]


def printed(line: LogLine, options: LogOptions) -> bytes:
    """A line as Kubernetes prints it. Pure."""
    text = line.text if line.text.endswith("\n") else f"{line.text}\n"
    if options.timestamps:
        moment = datetime.fromtimestamp(line.at, UTC).isoformat(timespec="microseconds").removesuffix("+00:00")
        text = f"{moment}000Z {text}"
    return text.encode()
