"""Passwords, against argon2 hashes.

A wrong password costs the address it came from a delay that doubles with every failure, and after some in a
row, from wherever, the name is locked for a while. A right one is remembered for this process as a keyed
hash: argon2 takes tens of milliseconds, which is for guesses, not for every request. What is remembered is
right also while the name is locked, so that guessing locks nobody out who is at work.
"""

import asyncio
import hashlib
import hmac
import secrets
import time
from collections.abc import Callable
from typing import Final

import argon2
import structlog

_FIRST_DELAY_S: Final = 0.25
_LONGEST_DELAY_S: Final = 8.0
_REMEMBERED_ADDRESSES: Final = 4096
FAILURES: Final = 10
LOCK_S: Final = 900.0
"""Failures in a row that lock a name, and for how long; NSX's are 5 and 900 s."""

log = structlog.get_logger("manager.auth")

_hasher = argon2.PasswordHasher()
_NOBODY: Final = _hasher.hash(secrets.token_hex())
"""Verified for a name that does not exist, so that it takes as long as one that does."""


def hash_password(password: str) -> str:
    return _hasher.hash(password)


class Passwords:
    def __init__(
        self, hash_of: Callable[[str], str | None], clock: Callable[[], float] = time.monotonic
    ) -> None:
        self._hash_of = hash_of
        self._clock = clock
        self._process_key = secrets.token_bytes(32)
        self._known: dict[str, bytes] = {}
        self._failures: dict[str, int] = {}
        self._of_names: dict[str, tuple[int, float]] = {}
        """Failures in a row, and when the last was; of names that exist."""
        self._turns: dict[str, asyncio.Lock] = {}

    async def verify(self, name: str, password: str, address: str) -> bool:
        """Whether it is `name`'s password. Guesses from one address are taken one after the other."""
        digest = hashlib.blake2b(f"{name}\0{password}".encode(), key=self._process_key).digest()
        if name in self._known and hmac.compare_digest(digest, self._known[name]):
            return True
        if len(self._turns) >= _REMEMBERED_ADDRESSES:
            self._failures.clear()
            self._turns.clear()
        async with self._turns.setdefault(address, asyncio.Lock()):
            stored = self._hash_of(name)
            matches = await asyncio.to_thread(_matches, stored or _NOBODY, password)
            if matches and stored is not None and stored == self._hash_of(name) and not self._locked(name):
                self._known[name] = digest
                self._failures.pop(address, None)
                self._of_names.pop(name, None)
                return True
            if stored is not None:
                log.warning("wrong password", user=name, address=address, locked=self._locked(name))
                self._of_names[name] = (self._of_names.get(name, (0, 0.0))[0] + 1, self._clock())
            failures = self._failures.get(address, 0)
            self._failures[address] = failures + 1
            await asyncio.sleep(min(_LONGEST_DELAY_S, _FIRST_DELAY_S * 2**failures))
            return False

    def forget(self, name: str) -> None:
        """Its password may be another now."""
        self._known.pop(name, None)
        self._of_names.pop(name, None)

    def _locked(self, name: str) -> bool:
        failures, last = self._of_names.get(name, (0, 0.0))
        if self._clock() - last > LOCK_S:
            self._of_names.pop(name, None)
            return False
        return failures >= FAILURES


def _matches(stored: str, password: str) -> bool:
    try:
        return _hasher.verify(stored, password)
    except argon2.exceptions.VerificationError:
        return False
