"""The host's own key: what is sealed to it opens here, also while the certificate is renewed."""

from pathlib import Path
from types import SimpleNamespace
from typing import cast

import pytest

from manager_stub.enrolment.credentials import Credential, Credentials
from manager_stub.pki import Authority
from manager_stub.store import Store
from vsfwd import files, identity
from vsfwd.protocol.envelope import Refused

HOST = "3f2b8c1e-0000-4000-8000-000000000001"
SECRET = b"a key for the controllers"


class Pair:
    """A host's directory, and what the manager knows of the host."""

    def __init__(self, directory: Path) -> None:
        self.own = directory / identity.HOST
        self.authority = Authority.create()
        self.credentials = Credentials(cast(Store, SimpleNamespace(credentials=list)))
        self.key = identity.new_key()
        files.replace(self.own, identity.key_pem(self.key) + self.certify(self.key))

    def certify(self, key: object) -> bytes:
        """The manager's part: from now on it seals to this key."""
        pem = self.authority.issue_host(HOST, identity.signing_request(key))  # type: ignore[arg-type]
        self.credentials.take(Credential(HOST, 1, pem.decode()))
        return pem

    def opened(self, sealed: bytes, purpose: str = "control-plane") -> bytes:
        return identity.open_sealed(self.own, sealed, host=HOST, purpose=purpose)

    def sealed(self) -> bytes:
        return self.credentials.seal(HOST, SECRET, "control-plane")


@pytest.fixture
def pair(tmp_path: Path) -> Pair:
    return Pair(tmp_path)


def test_what_the_manager_seals_opens_at_the_host(pair: Pair) -> None:
    """To the key of the certificate it gave; for another purpose it does not open."""
    assert pair.opened(pair.sealed()) == SECRET
    with pytest.raises(Refused):
        pair.opened(pair.sealed(), "context")


def test_nothing_is_lost_while_the_certificate_is_renewed(pair: Pair) -> None:
    """Sealed before the manager made the next one, and after, while the host does not have it yet."""
    before = pair.sealed()
    next_key = identity.new_key()
    files.replace(pair.own.with_name(identity.NEXT_KEY), identity.key_pem(next_key))
    pair.certify(next_key)
    after = pair.sealed()
    assert pair.opened(before) == pair.opened(after) == SECRET


def test_another_hosts_secret_does_not_open(pair: Pair, tmp_path: Path) -> None:
    """Whoever gets hold of the message has nothing of it, this host included; for a host whose key is not
    known nothing is sealed."""
    other = tmp_path / "other"
    other.mkdir()
    with pytest.raises(Refused):
        pair.opened(Pair(other).sealed())
    with pytest.raises(ValueError, match="not known"):
        pair.credentials.seal(HOST[:-1] + "2", SECRET, "control-plane")
