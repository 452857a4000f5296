"""Passwords, against argon2 hashes, and what guessing costs.

Two things are counted, after OWASP's Authentication Cheat Sheet, "Login Throttling". By source
(`throttle.py`): a wrong password costs it a delay that doubles. By name, from wherever: after some failures
in a row every further one closes the name, for a time that doubles up to a minute. What is tried while a name
is closed is refused and renews nothing, so that the name opens again whatever somebody does.

Where a name's password was right before, it is remembered as a keyed hash: argon2 takes tens of
milliseconds, which is for guesses, not for every request. What is remembered is right there also while the
name is closed, as OWASP's "Slow Down Online Guessing Attacks with Device Cookies" has it for devices, until
that source has made some guesses of its own.
"""

import asyncio
import hashlib
import hmac
import secrets
import time
from collections import defaultdict
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Final

import argon2
import structlog

from manager_stub.sources import source_of
from manager_stub.throttle import Throttle, doubled

FAILURES: Final = 10
"""In a row, and the name is closed. NSX closes it after 5, for 900 s."""
FIRST_CLOSED_S: Final = 1.0
LONGEST_CLOSED_S: Final = 60.0
"""1,440 guesses a day at a name, however many machines guess."""
FORGOTTEN_S: Final = 900.0
"""So long after the last failure they do not count any more."""
_KNOWN_SOURCES: Final = 16
"""Of a name."""

log = structlog.get_logger("manager.auth")

_hasher = argon2.PasswordHasher()
_NOBODY: Final = _hasher.hash(secrets.token_hex())
"""Verified for a name that does not exist, so that it takes as long as one that does."""


def hash_password(password: str) -> str:
    return _hasher.hash(password)


@dataclass
class _Name:
    """What is known of a user's name since their password is what it is."""

    failures: int = 0
    """In a row."""
    failed: float = 0.0
    """When the last was."""
    opens: float = 0.0
    right: bytes = b""
    """The keyed hash of the password, where it was said at least once."""
    known: dict[str, int] = field(default_factory=dict)
    """Sources that said it, the one that came first first, and how often they said something else since."""

    def remembers(self, source: str, digest: bytes) -> bool:
        """Whether there is no need to look. Counts at once: what is asked side by side, too."""
        if source not in self.known:
            return False
        if hmac.compare_digest(digest, self.right):
            return True
        self.known[source] += 1
        if self.known[source] >= FAILURES:
            del self.known[source]
        return False

    def succeed(self, source: str, digest: bytes) -> None:
        self.failures, self.right = 0, digest
        if len(self.known) >= _KNOWN_SOURCES:
            self.known.pop(next(iter(self.known)))
        self.known[source] = 0

    def fail(self, now: float) -> None:
        self.failures = 1 if now - self.failed > FORGOTTEN_S else self.failures + 1
        self.failed = now
        if self.failures >= FAILURES:
            self.opens = now + doubled(FIRST_CLOSED_S, self.failures - FAILURES, LONGEST_CLOSED_S)


class Passwords:
    def __init__(
        self, hash_of: Callable[[str], str | None], clock: Callable[[], float] = time.monotonic
    ) -> None:
        self._hash_of = hash_of
        self._clock = clock
        self._process_key = secrets.token_bytes(32)
        self._names: defaultdict[str, _Name] = defaultdict(_Name)
        """Of users there are."""
        self._throttle = Throttle()

    async def verify(self, name: str, password: str, address: str) -> bool:
        """Whether it is `name`'s password. Guesses from one source are taken one after the other."""
        digest = hashlib.blake2b(f"{name}\0{password}".encode(), key=self._process_key).digest()
        place = source_of(address)
        if name in self._names and self._names[name].remembers(place, digest):
            return True
        return await self._throttle.guess(place, lambda: self._is_right(name, password, place, digest))

    def forget(self, name: str) -> None:
        """Its password may be another now."""
        self._names.pop(name, None)

    async def _is_right(self, name: str, password: str, place: str, digest: bytes) -> bool:
        stored = self._hash_of(name)
        closed = stored is not None and self._clock() < self._names[name].opens
        matches = await asyncio.to_thread(_matches, stored or _NOBODY, password)
        if stored is None or stored != self._hash_of(name):  # changed meanwhile
            return False
        if closed:
            log.warning("a name is closed after wrong passwords", user=name, source=place)
            return False
        if not matches:
            log.warning("wrong password", user=name, source=place)
            self._names[name].fail(self._clock())
            return False
        self._names[name].succeed(place, digest)
        return True


def _matches(stored: str, password: str) -> bool:
    try:
        return _hasher.verify(stored, password)
    except argon2.exceptions.VerificationError:
        return False
