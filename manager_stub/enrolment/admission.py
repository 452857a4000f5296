"""The steps by which a host is let in, each of which can be the last before a crash, of either side.

1. One transaction: the token is used, the host is in the register, its certificate is made and kept.
2. The broker: the logins of earlier enrolments end, then come user, rights, queues and bindings.
3. The answer, with which the host has all it needs.

A host that has no answer asks again with the same token and the same key. What was done is found done, and it
gets the same answer. Nothing that the host says of itself but its key is believed.
"""

import asyncio
import time
from dataclasses import replace
from math import inf
from typing import Final
from uuid import uuid4

import structlog

from manager_stub import audit
from manager_stub.broker import Broker
from manager_stub.checks import Refused, check_host_name
from manager_stub.enrolment.credentials import Credential, Credentials
from manager_stub.enrolment.tokens import Token, Tokens
from manager_stub.pki import Authority
from manager_stub.register import Register
from manager_stub.store import Store
from manager_stub.transaction import Transaction
from vsfwd.protocol import topology
from vsfwd.protocol.fingerprint import fingerprint

log = structlog.get_logger("manager.enrolment")


AGAIN_S: Final = 60.0


class Void(Exception):
    """The token was used, by another key than this."""


class Admission:
    def __init__(
        self,
        store: Store,
        register: Register,
        broker: Broker,
        authority: Authority,
        tokens: Tokens,
        credentials: Credentials,
    ) -> None:
        self._store = store
        self._register = register
        self._broker = broker
        self._authority = authority
        self._tokens = tokens
        self._credentials = credentials
        self._letting_in: dict[str, asyncio.Lock] = {}
        self._let_in_at: dict[str, float] = {}
        """By login, when the broker was told of it last."""

    async def enrol(self, token: Token, csr: str, display_name: str) -> Credential:
        """Raises ValueError when `csr` is no signing request, Refused, Void, and broker.Unreachable: then the
        host may ask again."""
        key = fingerprint(self._authority.key_of(csr))
        if token.is_used:
            credential = self._given_before(token, key)
        else:
            before = audit.actor.set(f"enrolment token {token.id}")
            try:
                credential = self._given(token, key, csr, display_name)
            finally:
                audit.actor.reset(before)
        await self._let_in(credential)
        log.info("host enrolled", host=credential.host, login=credential.login, token=token.id)
        return credential

    async def _let_in(self, credential: Credential) -> None:
        """Not twice in AGAIN_S: it is ten calls to the broker, and who has a token may ask without end."""
        login = credential.login
        async with self._letting_in.setdefault(login, asyncio.Lock()):
            if time.monotonic() >= self._let_in_at.get(login, -inf) + AGAIN_S:
                await self._broker.add_host(credential.host)
                self._let_in_at[login] = time.monotonic()

    def _given_before(self, token: Token, key: str) -> Credential:
        mine = self._credentials.public_key(token.host)
        if token.key != key or token.host not in self._register.hosts or mine is None:
            raise Void
        if fingerprint(mine) != key:  # enrolled anew since, or renewed
            raise Void
        return self._credentials.of(token.host)

    def _given(self, token: Token, key: str, csr: str, display_name: str) -> Credential:
        name = self._name(token, display_name)
        host = token.host or str(uuid4())
        enrolment = self._credentials.of(host).enrolment + 1 if token.host else 1
        certificate = self._authority.issue_host(topology.login(host, enrolment), csr)
        issued = Credential(host, enrolment, certificate.decode())
        used = replace(token, host=host, key=key)

        def also(transaction: Transaction) -> None:
            self._credentials.put(transaction, issued)
            self._tokens.put(transaction, used)

        if token.host:
            with self._store.begin() as transaction:
                also(transaction)
        else:
            self._register.add_host(host, name, also)
        self._credentials.take(issued)
        self._tokens.take(used)
        return issued

    def _name(self, token: Token, display_name: str) -> str:
        """Raises Refused."""
        if token.host:
            if token.host not in self._register.hosts:
                raise Refused("", f"there is no host {token.host} any more")
            return self._register.hosts[token.host].display_name
        if token.display_name and display_name not in ("", token.display_name):
            raise Refused("display_name", f"the token is for a host called {token.display_name!r}")
        if not (token.display_name or display_name):
            raise Refused("display_name", "the token is for any host, so the host has to say its name")
        name = token.display_name or display_name
        check_host_name(name, (host.display_name for host in self._register.hosts.values()))
        return name
