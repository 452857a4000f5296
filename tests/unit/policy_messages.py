"""A manager that signs: policy messages for one host, with digests and generations that are right unless
told."""

import time
from typing import Any

import msgspec
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from vsfwd.protocol import envelope
from vsfwd.protocol.envelope import Kind, Message
from vsfwd.protocol.messages import KINDS, Request, digest_text, object_digest
from vsfwd.protocol.order import seal_order

HOST = "3f2b8c1e-0000-4000-8000-000000000001"
WEB = "aaaaaaaa-0000-4000-8000-000000000001"
APP = "aaaaaaaa-0000-4000-8000-000000000002"
WEB_VM = "bbbbbbbb-0000-4000-8000-000000000001"


def rule(name: str = "allow all", **fields: Any) -> dict[str, Any]:
    return {"name": name, "section": "default", "order": [9, 0, 0, 0], "action": "allow", **fields}


def group(*addresses: str, name: str = "group") -> dict[str, Any]:
    return {"name": name, "addresses": list(addresses)}


def vnic(*addresses: str, name: str = "web", groups: tuple[str, ...] = ()) -> dict[str, Any]:
    return {
        "vm": WEB_VM,
        "vm_name": name,
        "mac": "02:00:00:00:00:01",
        "addresses": list(addresses),
        "groups": list(groups),
    }


class Manager:
    """Keeps the state its messages build, as the real one does."""

    def __init__(self, host: str = HOST) -> None:
        self.key = Ed25519PrivateKey.generate()
        self.host = host
        self.epoch = 1
        self.generation = 0
        self.objects: dict[str, dict[str, bytes]] = {kind: {} for kind in KINDS}

    @property
    def digest(self) -> str:
        objects = ((kind, id, raw) for kind, of in self.objects.items() for id, raw in of.items())
        return digest_text(sum(object_digest(*one) for one in objects))

    def snapshot(self, **changes: dict[str, Any]) -> Message:
        self.objects = {kind: {} for kind in KINDS}
        return self._message(Kind.SNAPSHOT, changes)

    def delta(self, **changes: dict[str, Any]) -> Message:
        return self._message(Kind.DELTA, changes)

    def _message(self, kind: Kind, changes: dict[str, dict[str, Any]]) -> Message:
        base, self.generation = self.generation, self.generation + 1
        for name, objects in changes.items():
            for id, value in objects.items():
                self.objects[name].pop(id, None)
                if value is not None:
                    self.objects[name][id] = msgspec.json.encode(value)
        return self.sealed(
            kind, msgspec.json.encode(changes), base=base if kind is Kind.DELTA else self.generation
        )

    def request(self, request: Request, *, expires: int | None = None) -> Message:
        """On the app queue; it lives a minute unless told."""
        return seal_order(
            self.key,
            host=self.host,
            id=request.id,
            kind="request",
            expires=int(time.time()) + 60 if expires is None else expires,
            json=msgspec.json.encode(request),
        )

    def sealed(self, kind: Kind, json: bytes, *, base: int, digest: str | None = None) -> Message:
        return envelope.seal(
            self.key,
            host=self.host,
            epoch=self.epoch,
            generation=self.generation,
            base=base,
            kind=kind,
            digest=digest or self.digest,
            json=json,
        )
