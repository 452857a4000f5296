"""The admin's password: what is right, and what guessing costs."""

import asyncio

import pytest

from manager_stub.auth import FAILURES, LONGEST_CLOSED_S, Passwords, hash_password


async def test_every_wrong_guess_costs_more_and_a_right_one_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    """From one address, side by side or not: a quarter of a second, then half, …; others do not wait."""
    delays: list[float] = []

    async def sleep(seconds: float) -> None:
        delays.append(seconds)

    monkeypatch.setattr(asyncio, "sleep", sleep)
    passwords = Passwords({"admin": hash_password("right")}.get)
    for batch in (range(4), range(4, 7)):
        guesses = (passwords.verify("admin", f"guess{n}", "192.0.2.1") for n in batch)
        assert not any(await asyncio.gather(*guesses))
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


@pytest.fixture
def instant(monkeypatch: pytest.MonkeyPatch) -> None:
    """A refusal makes nobody wait."""

    async def sleep(seconds: float) -> None:
        pass

    monkeypatch.setattr(asyncio, "sleep", sleep)


async def guess(passwords: Passwords, times: int, first: int = 0) -> None:
    for number in range(first, first + times):
        assert not await passwords.verify("admin", "guess", f"192.0.2.{number}")


@pytest.mark.usefixtures("instant")
async def test_a_name_is_closed_after_failures_from_anywhere() -> None:
    """Then the right password is refused too, for longer after every further guess and never for more than a
    minute; other names are open."""
    now = 1e6
    hashes = {"admin": hash_password("right"), "other": hash_password("other's")}
    passwords = Passwords(hashes.get, lambda: now)
    await guess(passwords, FAILURES)
    assert not await passwords.verify("admin", "right", "192.0.2.100")
    assert await passwords.verify("other", "other's", "192.0.2.100")
    for seconds in (1, 2, 4, 8, 16, 32, *[LONGEST_CLOSED_S] * 3):
        now += seconds - 0.1
        assert not await passwords.verify("admin", "right", "192.0.2.100")
        now += 0.1
        await guess(passwords, 1)
    now += LONGEST_CLOSED_S
    assert await passwords.verify("admin", "right", "192.0.2.100")


@pytest.mark.usefixtures("instant")
async def test_who_tries_at_a_closed_name_does_not_keep_it_closed() -> None:
    """It opens when it was to open, whatever is tried meanwhile: nobody is locked out for good."""
    now = 1e6
    passwords = Passwords({"admin": hash_password("right")}.get, lambda: now)
    await guess(passwords, FAILURES)
    now += 0.9
    await guess(passwords, 5, first=50)
    now += 0.1
    assert await passwords.verify("admin", "right", "192.0.2.100")


@pytest.mark.usefixtures("instant")
async def test_strangers_do_not_close_a_name_where_its_user_works() -> None:
    """Where the password was right before, it goes on being right while the name is closed; not where
    guesses come from too, which cannot be told from the user."""
    passwords = Passwords({"admin": hash_password("right")}.get, lambda: 1e6)
    for address in ("192.0.2.100", "192.0.2.101"):
        assert await passwords.verify("admin", "right", address)
    for _ in range(FAILURES):
        assert not await passwords.verify("admin", "guess", "192.0.2.101")
    assert await passwords.verify("admin", "right", "192.0.2.100")
    assert not await passwords.verify("admin", "right", "192.0.2.101")
    assert not await passwords.verify("admin", "right", "192.0.2.102")


async def test_guesses_that_wait_for_their_turn_do_not_pile_up() -> None:
    """Of one source no more wait than it may have connections; the rest is refused at once, untested."""
    passwords = Passwords({"admin": hash_password("right")}.get)
    guesses = [asyncio.create_task(passwords.verify("admin", f"guess{n}", "192.0.2.1")) for n in range(70)]
    done, _ = await asyncio.wait(guesses, return_when=asyncio.FIRST_COMPLETED)
    assert [guess.result() for guess in done] == [False] * 6
    for guess in guesses:
        guess.cancel()
    await asyncio.gather(*guesses, return_exceptions=True)
    assert await passwords.verify("admin", "right", "192.0.2.1")


async def test_after_a_wrong_guess_few_wait() -> None:
    """The first wrong one sends away all but a few that wait behind it: each of them holds a connection."""
    passwords = Passwords({"admin": hash_password("right")}.get)
    guesses = [asyncio.create_task(passwords.verify("admin", f"guess{n}", "192.0.2.1")) for n in range(60)]
    done: set[asyncio.Task[bool]] = set()
    async with asyncio.timeout(10):
        while len(done) < 60 - 4:
            done, _ = await asyncio.wait(guesses, timeout=0.05)
    assert not any(guess.result() for guess in done)
    assert not await asyncio.wait_for(passwords.verify("admin", "one more", "192.0.2.1"), 10)
    for guess in guesses:
        guess.cancel()
    await asyncio.gather(*guesses, return_exceptions=True)


async def test_guesses_from_one_network_of_ipv6_are_from_one_source(monkeypatch: pytest.MonkeyPatch) -> None:
    """A machine has all addresses of a /64 (RFC 8981): they share the delay. IPv4 in IPv6 is IPv4."""
    delays: list[float] = []

    async def sleep(seconds: float) -> None:
        delays.append(seconds)

    monkeypatch.setattr(asyncio, "sleep", sleep)
    passwords = Passwords({}.get)
    for address in (
        *("2001:db8::1", "2001:db8::ffff:2", "2001:db8:0:0:3::%eth0"),
        *("2001:db8:0:1::1", "192.0.2.1", "::ffff:192.0.2.1", "::ffff:192.0.2.2"),
    ):
        await passwords.verify("admin", "guess", address)
    assert delays == [0.25, 0.5, 1, 0.25, 0.25, 0.5, 0.25]
