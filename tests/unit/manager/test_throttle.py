"""Guesses of one source that wait for their turn: how many, before and after a wrong one."""

import asyncio

import pytest

from manager_stub.throttle import Throttle

PASS = asyncio.sleep
MOST, MOST_AFTER_FAILURE = 64, 4


class Source:
    """Guesses of one source. `judge` says of the one whose turn it is whether it is right."""

    def __init__(self, throttle: Throttle) -> None:
        self._throttle = throttle
        self._judged: asyncio.Queue[bool] = asyncio.Queue()
        self.guesses: list[asyncio.Task[bool]] = []

    async def guess(self, times: int) -> None:
        for _ in range(times):
            self.guesses.append(asyncio.create_task(self._throttle.guess("192.0.2.1", self._judged.get)))
        await _settled()

    async def judge(self, is_right: bool) -> None:
        self._judged.put_nowait(is_right)
        await _settled()

    @property
    def answered(self) -> list[bool]:
        """Those that wait no more, in their order."""
        return [each.result() for each in self.guesses if each.done()]

    @property
    def waiting(self) -> int:
        return sum(not each.done() for each in self.guesses)


async def _settled() -> None:
    """A wrong one takes some turns of the loop for each of those that it sends away."""
    for _ in range(10 * MOST):
        await PASS(0)


@pytest.fixture
async def source(monkeypatch: pytest.MonkeyPatch) -> Source:
    """A wrong guess delays nobody."""

    async def at_once(_: float) -> None:
        pass

    monkeypatch.setattr(asyncio, "sleep", at_once)
    return Source(Throttle())


async def test_as_many_wait_as_one_may_have_connections(source: Source) -> None:
    """One more is wrong at once, unread; where one was right, there is place for one."""
    await source.guess(MOST)
    assert source.waiting == MOST
    await source.guess(1)
    assert (source.waiting, source.answered) == (MOST, [False])
    await source.judge(True)
    await source.guess(2)
    assert (source.waiting, source.answered) == (MOST, [True, False, False])


async def test_behind_a_wrong_one_few_stay(source: Source) -> None:
    """Those that came last, and one more is sent away."""
    await source.guess(MOST)
    await source.judge(False)
    assert (source.waiting, source.answered) == (MOST_AFTER_FAILURE, [False] * (MOST - MOST_AFTER_FAILURE))
    assert not any(guess.done() for guess in source.guesses[-MOST_AFTER_FAILURE:])
    await source.guess(1)
    assert source.waiting == MOST_AFTER_FAILURE


async def test_after_a_right_one_all_may_wait_again(source: Source) -> None:
    """It is somebody who has mistyped."""
    await source.guess(1)
    await source.judge(False)
    await source.guess(1)
    await source.judge(True)
    await source.guess(MOST + 1)
    assert source.waiting == MOST
