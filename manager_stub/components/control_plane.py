"""The controllers of the installation, and what hosts prove themselves to them with: given to the
control-plane agents of the hosts.

A new list is sent to every host at once, and whoever misses it asks. A certificate is made with its key when
an agent asks for one, and the key is kept nowhere but there: it leaves sealed to the host's own."""

import time
from collections.abc import Sequence
from typing import Final

import msgspec

from manager_stub import audit
from manager_stub.clock import now_ms
from manager_stub.components.switchboard import Declined, Switchboard
from manager_stub.enrolment.credentials import Credentials
from manager_stub.pki import Authority
from manager_stub.register import Register
from manager_stub.store import Store
from vsfwd.protocol.components import Body, as_body
from vsfwd.protocol.control_plane import (
    COMPONENT,
    CONTROLLERS,
    IDENTITY,
    PURPOSE,
    Controller,
    Controllers,
    Identity,
    common_name,
)

PATH: Final = "/vsfw/controllers"
LIVES_S: Final = 60
"""That a list waits for a host that is away; then the host asks when it is back."""
AGAIN_S: Final = 60.0
"""A host is given one certificate in this time."""


class ControlPlane:
    def __init__(
        self,
        store: Store,
        register: Register,
        switchboard: Switchboard,
        authority: Authority,
        credentials: Credentials,
    ) -> None:
        self._store = store
        self._register = register
        self._switchboard = switchboard
        self._authority = authority
        self._credentials = credentials
        self._given_at: dict[str, float] = {}
        kept = store.controllers()
        self.list = msgspec.json.decode(kept, type=Controllers) if kept else Controllers(0, ())
        switchboard.services |= {
            (COMPONENT, CONTROLLERS): lambda host, body: self._body(),
            (COMPONENT, IDENTITY): self._identity,
        }

    def put(self, controllers: Sequence[Controller]) -> None:
        """In place of those there are; nothing happens where they are the same."""
        if tuple(controllers) == self.list.controllers:
            return
        after = Controllers(max(now_ms(), self.list.generation + 1), tuple(controllers))
        before = as_body(self.list) if self.list.generation else None
        with self._store.begin() as transaction:
            transaction.put_controllers(msgspec.json.encode(after).decode())
            transaction.add_changes([audit.change(PATH, before, as_body(after), now_ms())])
        self.list = after
        self._switchboard.post(list(self._register.hosts), COMPONENT, CONTROLLERS, self._body(), LIVES_S)

    def _body(self) -> Body:
        return as_body(self.list)

    def _identity(self, host: str, body: Body) -> Body:
        if time.monotonic() < self._given_at.get(host, -AGAIN_S) + AGAIN_S:
            raise Declined(f"a certificate was given to it within the last {AGAIN_S:g} s")
        pem, key = self._authority.issue_client(common_name(host))
        try:
            sealed = self._credentials.seal(host, key, PURPOSE)
        except ValueError as error:
            raise Declined(str(error)) from None
        certificate = pem.decode()
        with self._store.begin() as transaction, audit.as_host(host):
            path = f"/vsfw/hosts/{host}/control-plane-certificate"
            transaction.add_changes([audit.change(path, None, {"certificate": certificate}, now_ms())])
        self._given_at[host] = time.monotonic()
        return as_body(Identity(certificate, sealed))
