"""Enrolment tokens: each lets one host in, for a while. Of the secret only a hash is kept.

A token is used when a host's key has been entered with it. From then on it is good for that key alone: a host
that was interrupted asks again with the token it has, and gets the same; with any other key it is void.
"""

import hashlib
import hmac
import secrets
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

from manager_stub import audit
from manager_stub.checks import Refused
from manager_stub.clock import now_ms
from manager_stub.store import Store
from manager_stub.transaction import Transaction

MAX_TOKENS: Final = 10_000
"""Not yet expired: a large installation enrolled in one day."""


@dataclass(frozen=True)
class Token:
    """`display_name`: that of the host it is for, empty: any. `host`: the host that is enrolled anew with it,
    or was with it; `key`: of whom, as the hash of a public key, empty: nobody yet."""

    id: str
    display_name: str
    host: str
    key: str
    digest: str
    created_ms: int
    expires_ms: int

    @property
    def is_used(self) -> bool:
        return bool(self.key)


class Tokens:
    def __init__(self, store: Store) -> None:
        self._store = store
        self._tokens = {row["id"]: Token(**row) for row in store.enrolment_tokens()}

    @property
    def all(self) -> Sequence[Token]:
        """Those that have not expired."""
        now = now_ms()
        return [token for token in self._tokens.values() if now < token.expires_ms]

    def add(self, display_name: str, host: str, lifetime_s: int) -> tuple[Token, str]:
        """The token's record, and the token, which is told this once. Raises Refused."""
        expired = self._tokens.keys() - {token.id for token in self.all}
        if len(self._tokens) - len(expired) >= MAX_TOKENS:
            raise Refused("", f"there are {MAX_TOKENS} enrolment tokens, which is the limit")
        id, secret, now = secrets.token_hex(6), secrets.token_urlsafe(32), now_ms()
        token = Token(id, display_name, host, "", _digest(secret), now, now + lifetime_s * 1000)
        with self._store.begin() as transaction:
            for each in expired:
                transaction.delete_enrolment_token(each)
            transaction.put_enrolment_token(vars(token))
            transaction.add_changes([audit.change(_path(id), None, _told(token), now)])
        for each in expired:
            del self._tokens[each]
        self._tokens[id] = token
        return token, f"{id}.{secret}"

    def revoke(self, token: Token) -> None:
        with self._store.begin() as transaction:
            transaction.delete_enrolment_token(token.id)
            transaction.add_changes([audit.change(_path(token.id), _told(token), None, now_ms())])
        del self._tokens[token.id]

    def find(self, text: str) -> Token | None:
        """None: there is no such token, or it has expired."""
        id, _, secret = text.partition(".")
        token = self._tokens.get(id)
        right = hmac.compare_digest(_digest(secret), token.digest if token else _digest(""))
        return token if token and right and now_ms() < token.expires_ms else None

    def put(self, transaction: Transaction, used: Token) -> None:
        """A token that is used now. It counts once `take` has it, after the transaction."""
        transaction.put_enrolment_token(vars(used))
        before = _told(self._tokens[used.id])
        transaction.add_changes([audit.change(_path(used.id), before, _told(used), now_ms())])

    def take(self, token: Token) -> None:
        self._tokens[token.id] = token


def _digest(secret: str) -> str:
    """256 random bits need no slow hash."""
    return hashlib.sha256(secret.encode()).hexdigest()


def _path(id: str) -> str:
    return f"/vsfw/enrolment-tokens/{id}"


def _told(token: Token) -> dict[str, str | int | bool]:
    return {
        "display_name": token.display_name,
        "host": token.host,
        "used": token.is_used,
        "expires": token.expires_ms,
    }
