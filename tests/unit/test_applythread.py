"""O38: what local clients ask of the apply thread, over and over: policy does not wait behind all of them."""

import asyncio
import threading
from contextlib import suppress

from vsfwd.applythread import ApplyThread, Reads


async def done_in_order(give_up: bool) -> list[str]:
    """Three clients ask while a fourth is read for, then a policy message comes. `give_up`: the fourth does
    not wait for its answer."""
    apply_thread, order = ApplyThread(), list[str]()
    reads, begun, end = Reads(apply_thread), threading.Event(), threading.Event()

    def first() -> None:
        begun.set()
        end.wait(10)
        order.append("first")

    reading = asyncio.create_task(reads(first))
    await asyncio.to_thread(begun.wait, 10)
    if give_up:
        reading.cancel()
    others = [asyncio.create_task(reads(order.append, "other")) for _ in range(3)]
    for _ in range(10):
        await asyncio.sleep(0)
    policy = asyncio.create_task(apply_thread(order.append, "policy"))
    await asyncio.sleep(0)
    end.set()
    await asyncio.gather(policy, *others)
    with suppress(asyncio.CancelledError):
        await reading
    apply_thread.finish(lambda: None)
    return order


async def test_policy_waits_for_one_of_many_clients() -> None:
    """The one that is read for at the moment; each of the others has its answer after that."""
    assert await done_in_order(give_up=False) == ["first", "policy", "other", "other", "other"]


async def test_who_does_not_wait_for_the_answer_asks_no_more_often() -> None:
    """What was begun for it is its turn until it is done."""
    assert await done_in_order(give_up=True) == ["first", "policy", "other", "other", "other"]
