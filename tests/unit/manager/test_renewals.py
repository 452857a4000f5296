"""A host's next certificate, at the manager: for the key in force, and for nobody else."""

from contextlib import nullcontext
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from cryptography import x509

from manager_stub import pki
from manager_stub.enrolment.credentials import Credential, Credentials
from manager_stub.enrolment.renewals import Renewals
from manager_stub.reports import BadReport
from tests.unit.manager.rest import VSFW, Manager
from vsfwd import identity
from vsfwd.protocol.messages import Renewal
from vsfwd.protocol.renewal import prove

HOST = "33333333-0000-4000-8000-000000000001"
KEY = identity.new_key()


@pytest.fixture
def credentials(manager: Manager, monkeypatch: pytest.MonkeyPatch) -> Credentials:
    """Of a host that was enrolled twice; its certificates are due at once."""
    monkeypatch.setattr(pki, "HOST_LIFE", timedelta(hours=1))
    return given(manager, identity.signing_request(KEY))


def given(manager: Manager, csr: str) -> Credentials:
    credentials = Credentials(manager.parts.store)
    pem = manager.directory.authority().issue_host(f"{HOST}.2", csr).decode()
    credential = Credential(HOST, 2, pem)
    manager.register.add_host(HOST, "host", lambda transaction: credentials.put(transaction, credential))
    credentials.take(credential)
    return credentials


@pytest.fixture
def renewals(manager: Manager, credentials: Credentials) -> Renewals:
    return Renewals(manager.parts.store, manager.register, manager.directory.authority(), credentials)


def asked(key: Any, by: Any = KEY, host: str = HOST) -> Renewal:
    csr = identity.signing_request(key)
    return Renewal(csr, prove(by, host, csr))


def sent(manager: Manager) -> list[str]:
    return [request.certificate for _, request in manager.register.requests]


async def test_the_key_in_force_gets_the_next_certificate(
    manager: Manager, renewals: Renewals, credentials: Credentials, monkeypatch: pytest.MonkeyPatch
) -> None:
    """For the new key and with the login it has, kept over a restart, and in the audit log; from then on the
    new key is the one in force."""
    new = identity.new_key()
    renewals.asked(HOST, asked(new))
    [pem] = sent(manager)
    certificate = x509.load_pem_x509_certificate(pem.encode())
    assert certificate.public_key() == new.public_key()
    assert identity.login_of(certificate) == f"{HOST}.2"
    assert Credentials(manager.parts.store).of(HOST) == credentials.of(HOST) == Credential(HOST, 2, pem)
    [line] = (await manager.call("GET", f"{VSFW}/audit-log?path=/vsfw/hosts/{HOST}/certificate"))["results"]
    assert (line["user"], line["after"]["serial_number"]) == (
        f"host {HOST}",
        f"{certificate.serial_number:x}",
    )
    monkeypatch.setattr("manager_stub.enrolment.renewals.AGAIN_S", 0)
    renewals.asked(HOST, asked(identity.new_key(), by=new))
    with pytest.raises(BadReport, match="by the key of the certificate in force"):
        renewals.asked(HOST, asked(identity.new_key(), by=KEY))


async def test_an_answer_that_was_lost_is_given_again(manager: Manager, renewals: Renewals) -> None:
    """The host asks with the same new key, and the proof of the old one, which is not in force any more."""
    new = identity.new_key()
    renewals.asked(HOST, asked(new))
    first = sent(manager)
    manager.register.requests.take(1)
    renewals.asked(HOST, asked(new))
    assert sent(manager) == first


async def test_a_host_that_asks_and_asks_has_one_answer_waiting(manager: Manager, renewals: Renewals) -> None:
    """With the same key: nothing piles up while the broker is slow."""
    new = identity.new_key()
    for _ in range(5):
        renewals.asked(HOST, asked(new))
    assert len(sent(manager)) == 1


async def test_a_host_that_makes_key_after_key_gets_one_certificate_a_minute(
    manager: Manager, renewals: Renewals, credentials: Credentials
) -> None:
    """Though it proves to have each: the next is refused, and leaves no line in the audit log."""
    new = identity.new_key()
    renewals.asked(HOST, asked(new))
    given = credentials.of(HOST)
    with pytest.raises(BadReport, match="within the last 60 s"):
        renewals.asked(HOST, asked(identity.new_key(), by=new))
    assert credentials.of(HOST) == given
    lines = (await manager.call("GET", f"{VSFW}/audit-log?path=/vsfw/hosts/{HOST}/certificate"))["results"]
    assert len(lines) == 1


async def test_a_certificate_that_is_not_due_is_not_renewed(
    manager: Manager, renewals: Renewals, credentials: Credentials, monkeypatch: pytest.MonkeyPatch
) -> None:
    """However well it is asked for; a host whose clock is ahead by less than a day gets it."""
    monkeypatch.setattr(pki, "HOST_LIFE", timedelta(days=90))
    new = identity.new_key()
    renewals.asked(HOST, asked(new))
    given = credentials.of(HOST)
    monkeypatch.setattr("manager_stub.enrolment.renewals.AGAIN_S", 0)
    begun = datetime.now(UTC)
    for days, due in ((0, False), (58.9, False), (59.1, True)):
        monkeypatch.setattr(
            "manager_stub.enrolment.renewals._now", lambda now=begun + timedelta(days=days): now
        )
        with nullcontext() if due else pytest.raises(BadReport, match="not yet two thirds through its life"):
            renewals.asked(HOST, asked(identity.new_key(), by=new))
        assert (credentials.of(HOST) != given) is due


@pytest.mark.parametrize("what", ["another key", "another host", "no proof", "no request"])
async def test_who_has_not_the_key_gets_nothing(
    manager: Manager, renewals: Renewals, credentials: Credentials, what: str
) -> None:
    """Somebody who can put messages onto the broker in the host's name: it is refused and told as the
    host's."""
    before, new = credentials.of(HOST), identity.new_key()
    said = {
        "another key": asked(new, by=new),
        "another host": asked(new, host=HOST[:-1] + "2"),
        "no proof": Renewal(identity.signing_request(new), b""),
        "no request": Renewal("nonsense", b""),
    }[what]
    with pytest.raises(BadReport) as refused:
        renewals.asked(HOST, said)
    assert refused.value.host == HOST
    assert (sent(manager), credentials.of(HOST)) == ([], before)


async def test_o28_certificates_that_near_their_end_are_alarms(
    manager: Manager, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A host's, and each of the installation's own; in NSX's shape."""
    monkeypatch.setattr(pki, "HOST_LIFE", timedelta(days=7))
    given(manager, identity.signing_request(KEY))
    monkeypatch.setattr(pki, "SERVER_LIFE", timedelta(minutes=-1))
    certificate, _ = manager.directory.authority().issue_server("broker", ["127.0.0.1"])
    (manager.directory.path / "broker.crt").write_bytes(certificate)
    await manager.close()
    reborn = Manager(manager.directory, manager.admin[1])
    try:
        found = (await reborn.call("GET", "/api/v1/alarms"))["results"]
    finally:
        await reborn.close()
    told = {
        (each["entity_id"], each["event_type"], each["severity"])
        for each in found
        if each["feature_name"] == "certificates"
    }
    assert told == {
        (HOST, "certificate_is_about_to_expire", "HIGH"),
        ("broker", "certificate_expired", "CRITICAL"),
    }
