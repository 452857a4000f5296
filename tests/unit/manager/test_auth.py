"""The admin's password: what is right, and what guessing costs."""

import asyncio

from manager_stub.auth import Passwords, hash_password


async def test_every_wrong_guess_costs_more_and_a_right_one_nothing() -> None:
    """From one address, side by side or not: a quarter of a second, then half, …; others do not wait."""
    passwords = Passwords({"admin": hash_password("right")})
    clock = asyncio.get_running_loop().time
    started = clock()
    guesses = await asyncio.gather(*(passwords.verify("admin", f"guess{n}", "192.0.2.1") for n in range(2)))
    assert guesses == [False, False]
    assert clock() - started >= 0.75
    assert await passwords.verify("admin", "right", "192.0.2.2")


async def test_a_name_that_does_not_exist_has_no_password() -> None:
    """Not even that of the hash it is compared with for the time it takes."""
    passwords = Passwords({"admin": hash_password("right")})
    assert not await passwords.verify("nobody", "right", "192.0.2.1")


async def test_a_remembered_password_is_the_names_own() -> None:
    """Once right for admin, it is not right for another name."""
    passwords = Passwords({"admin": hash_password("right")})
    assert await passwords.verify("admin", "right", "192.0.2.1")
    assert await passwords.verify("admin", "right", "192.0.2.1")
    assert not await passwords.verify("root", "right", "192.0.2.1")
