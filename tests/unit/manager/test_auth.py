"""The admin's password: what is right, and what guessing costs."""

import asyncio

import pytest

from manager_stub.auth import FAILURES, LOCK_S, Passwords, hash_password


async def test_every_wrong_guess_costs_more_and_a_right_one_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    """From one address, side by side or not: a quarter of a second, then half, …; others do not wait."""
    delays: list[float] = []

    async def sleep(seconds: float) -> None:
        delays.append(seconds)

    monkeypatch.setattr(asyncio, "sleep", sleep)
    passwords = Passwords({"admin": hash_password("right")}.get)
    guesses = await asyncio.gather(*(passwords.verify("admin", f"guess{n}", "192.0.2.1") for n in range(7)))
    assert guesses == [False] * 7
    assert delays == [0.25, 0.5, 1, 2, 4, 8, 8]
    assert await passwords.verify("admin", "right", "192.0.2.2")
    assert len(delays) == 7


async def test_a_name_that_does_not_exist_has_no_password() -> None:
    """Not even that of the hash it is compared with for the time it takes."""
    passwords = Passwords({"admin": hash_password("right")}.get)
    assert not await passwords.verify("nobody", "right", "192.0.2.1")


async def test_a_remembered_password_is_the_names_own() -> None:
    """Once right for admin, it is not right for another name."""
    passwords = Passwords({"admin": hash_password("right")}.get)
    assert await passwords.verify("admin", "right", "192.0.2.1")
    assert await passwords.verify("admin", "right", "192.0.2.1")
    assert not await passwords.verify("root", "right", "192.0.2.1")


async def test_a_name_is_locked_after_failures_from_anywhere(monkeypatch: pytest.MonkeyPatch) -> None:
    """Then the right password is refused too, for a while; who gave it before goes on working."""

    async def sleep(seconds: float) -> None:
        pass

    monkeypatch.setattr(asyncio, "sleep", sleep)
    now = 0.0
    hashes = {"admin": hash_password("right"), "other": hash_password("other's")}
    passwords = Passwords(hashes.get, lambda: now)
    for address in range(FAILURES):
        assert not await passwords.verify("admin", "guess", f"192.0.2.{address}")
    assert not await passwords.verify("admin", "right", "192.0.2.100")
    assert await passwords.verify("other", "other's", "192.0.2.100")
    now = LOCK_S + 1
    assert await passwords.verify("admin", "right", "192.0.2.100")
    for address in range(FAILURES):
        assert not await passwords.verify("admin", "guess", f"192.0.2.{address}")
    assert await passwords.verify("admin", "right", "192.0.2.101")
