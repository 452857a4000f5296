"""Passwords, against argon2 hashes.

A wrong password costs the address it came from a delay that doubles with every failure. A right one is
remembered for this process as a keyed hash: argon2 takes tens of milliseconds, which is for guesses, not
for every request.
"""

import asyncio
import hashlib
import secrets
from typing import Final

import argon2

_FIRST_DELAY_S: Final = 0.25
_LONGEST_DELAY_S: Final = 8.0
_REMEMBERED_ADDRESSES: Final = 4096

_hasher = argon2.PasswordHasher()
_NOBODY: Final = _hasher.hash(secrets.token_hex())
"""Verified for a name that does not exist, so that it takes as long as one that does."""


def hash_password(password: str) -> str:
    return _hasher.hash(password)


class Passwords:
    def __init__(self, hashes: dict[str, str]) -> None:
        self._hashes = hashes
        self._process_key = secrets.token_bytes(32)
        self._known: set[bytes] = set()
        self._failures: dict[str, int] = {}
        self._turns: dict[str, asyncio.Lock] = {}

    async def verify(self, name: str, password: str, address: str) -> bool:
        """Whether it is `name`'s password. Guesses from one address are taken one after the other."""
        digest = hashlib.blake2b(f"{name}\0{password}".encode(), key=self._process_key).digest()
        if digest in self._known:
            return True
        if len(self._turns) >= _REMEMBERED_ADDRESSES:
            self._failures.clear()
            self._turns.clear()
        async with self._turns.setdefault(address, asyncio.Lock()):
            if await asyncio.to_thread(self._matches, name, password):
                self._known.add(digest)
                self._failures.pop(address, None)
                return True
            failures = self._failures.get(address, 0)
            self._failures[address] = failures + 1
            await asyncio.sleep(min(_LONGEST_DELAY_S, _FIRST_DELAY_S * 2**failures))
            return False

    def _matches(self, name: str, password: str) -> bool:
        try:
            return _hasher.verify(self._hashes.get(name, _NOBODY), password) and name in self._hashes
        except argon2.exceptions.VerificationError:
            return False
