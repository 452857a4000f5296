"""Certificates in time: two thirds, a proof, and thirty, seven and one day before the end."""

from datetime import UTC, datetime, timedelta

import pytest
from cryptography import x509

from manager_stub import pki
from manager_stub.pki import Authority
from vsfwd import identity
from vsfwd.protocol.renewal import Expiry, expiry, is_due, is_proven, prove

HOST = "3f2b8c1e-0000-4000-8000-000000000001"
KEY = identity.new_key()
CERTIFICATE = x509.load_pem_x509_certificate(
    Authority.create().issue_host(HOST, identity.signing_request(KEY))
)
BEGIN, END = CERTIFICATE.not_valid_before_utc, CERTIFICATE.not_valid_after_utc


def test_a_certificate_is_due_at_two_thirds_of_its_life() -> None:
    """A second before it is not; once it has ended it still is."""
    due = BEGIN + (END - BEGIN) * 2 / 3
    assert [is_due(CERTIFICATE, due + timedelta(seconds=s)) for s in (-1, 0, 1)] == [False, True, True]
    assert is_due(CERTIFICATE, END + timedelta(days=400))


@pytest.mark.parametrize(
    ("left", "event_type", "severity"),
    [
        (timedelta(days=30), "certificate_expiration_approaching", "MEDIUM"),
        (timedelta(days=7, seconds=1), "certificate_expiration_approaching", "MEDIUM"),
        (timedelta(days=7), "certificate_is_about_to_expire", "HIGH"),
        (timedelta(days=1), "certificate_is_about_to_expire", "CRITICAL"),
        (timedelta(seconds=1), "certificate_is_about_to_expire", "CRITICAL"),
        (timedelta(0), "certificate_expired", "CRITICAL"),
        (timedelta(days=-500), "certificate_expired", "CRITICAL"),
    ],
)
def test_o28_somebody_is_told_30_7_and_1_day_before(left: timedelta, event_type: str, severity: str) -> None:
    """In NSX's words, and when it is over; the end is named."""
    told = expiry(CERTIFICATE, END - left)
    assert isinstance(told, Expiry)
    assert (told.event_type, told.severity) == (event_type, severity)
    assert END.isoformat(timespec="seconds") in told.description


def test_o28_a_certificate_that_is_renewed_in_time_is_no_alarm() -> None:
    """At two thirds of the life of a host's certificate there is a day before the first one."""
    assert expiry(CERTIFICATE, END - timedelta(days=30, seconds=1)) is None
    assert BEGIN + pki.HOST_LIFE * 2 / 3 + timedelta(hours=23) < END - timedelta(days=30)
    assert expiry(CERTIFICATE, datetime.now(UTC)) is None


def test_only_the_key_in_force_proves_a_request() -> None:
    """For this host and this request; neither another key, nor a signature moved from elsewhere."""
    csr = identity.signing_request(identity.new_key())
    proof = prove(KEY, HOST, csr)
    public = KEY.public_key()
    assert is_proven(public, HOST, csr, proof)
    assert not is_proven(public, HOST, identity.signing_request(identity.new_key()), proof)
    assert not is_proven(public, "another host", csr, proof)
    assert not is_proven(public, HOST, csr, prove(identity.new_key(), HOST, csr))
    assert not is_proven(public, HOST, csr, b"")
