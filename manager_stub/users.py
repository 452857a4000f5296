"""Who may speak to the REST interface: users with their roles and password hashes, and their API tokens, of
which only a hash is kept. In memory, and in the store from the moment of a change."""

import hashlib
import secrets
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Final
from uuid import uuid4

from manager_stub import audit
from manager_stub.access import Role
from manager_stub.auth import hash_password
from manager_stub.checks import Refused
from manager_stub.clock import now_ms
from manager_stub.store import Store
from manager_stub.transaction import Transaction

TOKEN_PREFIX: Final = "vsfw_"
"""So that one that was left somewhere is found."""
MAX_TOKENS: Final = 100
"""Of a user."""


@dataclass(frozen=True)
class User:
    name: str
    role: Role
    password_hash: str


@dataclass(frozen=True)
class Token:
    id: str
    user: str
    display_name: str
    digest: str
    created_ms: int
    expires_ms: int


class Users:
    def __init__(self, store: Store, forget: Callable[[str], None] = lambda name: None) -> None:
        """`forget` is called with the name of a user whose sessions and remembered password end."""
        self._store = store
        self.forget = forget
        self._users = {
            row["name"]: User(row["name"], Role(row["role"]), row["password_hash"]) for row in store.users()
        }
        self._tokens = {row["digest"]: Token(**row) for row in store.tokens()}

    @property
    def all(self) -> Mapping[str, User]:
        return self._users

    def password_hash(self, name: str) -> str | None:
        user = self._users.get(name)
        return user.password_hash if user else None

    def put(self, name: str, role: Role, password: str | None = None) -> None:
        """Make a user, or change the role, the password or both. With a new password all tokens end: who
        changes it may do so because somebody else knows it. Raises Refused."""
        if name == audit.SYSTEM:
            raise Refused("name", f"{name} is what the audit log calls the manager itself")
        before = self._users.get(name)
        if before is None and password is None:
            raise Refused("password", "a new user needs one")
        if role is not Role.ENTERPRISE_ADMIN:
            self._check_somebody_left(name)
        kept = before.password_hash if before else ""
        user = User(name, role, kept if password is None else hash_password(password))
        was = _logged(before) if before else None
        # Of a password the log has no more than that it is another.
        after = {"role": str(role)} | ({"password": "changed"} if password is not None else {})
        ended = [] if password is None else self.tokens_of(name)
        with self._store.begin() as transaction:
            transaction.put_user(name, user.password_hash, role)
            transaction.add_changes([audit.change(_path(name), was, after, now_ms())])
            _end(transaction, ended)
        self._users[name] = user
        self._drop(ended)
        self.forget(name)

    def delete(self, name: str) -> None:
        """With all tokens. Raises Refused."""
        user = self._users[name]
        self._check_somebody_left(name)
        ended = self.tokens_of(name)
        with self._store.begin() as transaction:
            _end(transaction, ended)
            transaction.delete_user(name)
            transaction.add_changes([audit.change(_path(name), _logged(user), None, now_ms())])
        del self._users[name]
        self._drop(ended)
        self.forget(name)

    def _check_somebody_left(self, without: str) -> None:
        before = self._users.get(without)
        if before is None or before.role is not Role.ENTERPRISE_ADMIN:
            return
        admins = [user for user in self._users.values() if user.role is Role.ENTERPRISE_ADMIN]
        if len(admins) == 1:
            raise Refused("", f"{without} is the last enterprise admin")

    # Tokens

    def tokens_of(self, name: str) -> list[Token]:
        return [each for each in self._tokens.values() if each.user == name]

    def add_token(self, name: str, display_name: str, lifetime_s: int) -> tuple[Token, str]:
        """The token's record, and the token, which is told this once. Raises Refused."""
        if len(self.tokens_of(name)) >= MAX_TOKENS:
            raise Refused("", f"{name} has {MAX_TOKENS} tokens, which is the limit")
        secret = TOKEN_PREFIX + secrets.token_urlsafe(32)
        now = now_ms()
        token = Token(str(uuid4()), name, display_name, _digest(secret), now, now + lifetime_s * 1000)
        with self._store.begin() as transaction:
            transaction.put_token(vars(token))
            transaction.add_changes(
                [audit.change(f"{_path(name)}/tokens/{token.id}", None, _told(token), now)]
            )
        self._tokens[token.digest] = token
        return token, secret

    def revoke(self, token: Token) -> None:
        with self._store.begin() as transaction:
            _end(transaction, [token])
        self._drop([token])

    def of_token(self, secret: str) -> str | None:
        """The name of the user whose token this is. None: nobody's, or it has expired."""
        token = self._tokens.get(_digest(secret))
        return token.user if token and now_ms() < token.expires_ms else None

    def _drop(self, tokens: list[Token]) -> None:
        for token in tokens:
            del self._tokens[token.digest]


def _end(transaction: Transaction, tokens: list[Token]) -> None:
    for token in tokens:
        transaction.delete_token(token.id)
        path = f"{_path(token.user)}/tokens/{token.id}"
        transaction.add_changes([audit.change(path, _told(token), None, now_ms())])


def _digest(secret: str) -> str:
    """256 random bits need no slow hash."""
    return hashlib.sha256(secret.encode()).hexdigest()


def _path(name: str) -> str:
    return f"/vsfw/users/{name}"


def _logged(user: User) -> dict[str, str]:
    return {"role": str(user.role)}


def _told(token: Token) -> dict[str, str | int]:
    return {"display_name": token.display_name, "expires": token.expires_ms}
