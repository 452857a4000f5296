"""The host's next certificate: asked for with a new key, taken when it fits, and both in one step."""

from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from manager_stub.pki import HOST_LIFE, Authority
from tests.unit.policy_messages import HOST
from vsfwd import files, identity
from vsfwd.config import Config
from vsfwd.protocol.messages import Renewal
from vsfwd.protocol.renewal import is_proven
from vsfwd.renewal import CertificateRenewal


class Host:
    """With a certificate of `authority`; what it said, and a clock that the test sets."""

    def __init__(self, directory: Path) -> None:
        self.authority = Authority.create()
        self.key = identity.new_key()
        self.pem = directory / "host.pem"
        certificate = self.authority.issue_host(HOST, identity.signing_request(self.key))
        files.replace(self.pem, identity.key_pem(self.key) + certificate)
        (directory / "ca.pem").write_bytes(self.authority.pem)
        self.config = Config(
            host_id=HOST,
            broker_urls=("amqps://10.0.0.1:5671",),
            ca=directory / "ca.pem",
            certificate=self.pem,
            key=self.pem,
            manager_key="l6pYz0bMJQ5mF1c0PS0o0mQ5yF3zX0yqSOVtWJkqQpA=",
        )
        self.said: list[Renewal] = []
        self.now = datetime.now(UTC)
        self.begin()

    def begin(self) -> None:
        """The daemon starts."""
        self.renewal = CertificateRenewal(self.config, self.said.append, lambda: self.now)

    def asked(self) -> Renewal:
        """At two thirds."""
        self.now = datetime.now(UTC) + HOST_LIFE * 2 / 3
        self.renewal.ask_if_due()
        return self.said[-1]

    def given(self, csr: str) -> str:
        return self.authority.issue_host(HOST, csr).decode()

    def in_force(self) -> tuple[bytes, str]:
        """Key and certificate on disk, which belong together."""
        pem = self.pem.read_bytes()
        key, certificate = identity.load_key(pem), identity.load_certificate(pem)
        assert key.public_key() == certificate.public_key()
        return identity.key_pem(key), f"{certificate.serial_number:x}"


@pytest.fixture
def host(tmp_path: Path) -> Host:
    return Host(tmp_path)


def test_nothing_is_asked_before_two_thirds(host: Host) -> None:
    """And no key made."""
    host.now += HOST_LIFE * 0.66
    host.renewal.ask_if_due()
    assert host.said == []
    assert {path.name for path in host.pem.parent.iterdir()} == {"host.pem", "ca.pem"}


def test_each_certificate_has_a_new_key(host: Host) -> None:
    """The request is proven by the key in force; what comes takes the place of key and certificate at once,
    for root alone, and nothing is left."""
    keys = {host.in_force()[0]}
    for _ in range(3):
        before = identity.load_key(host.pem.read_bytes())
        asked = host.asked()
        assert is_proven(before.public_key(), HOST, asked.csr, asked.proof)
        assert host.renewal.take(host.given(asked.csr)) == ""
        keys.add(host.in_force()[0])
    assert len(keys) == 4
    assert host.pem.stat().st_mode & 0o777 == 0o600
    assert {path.name for path in host.pem.parent.iterdir()} == {"host.pem", "ca.pem"}


def test_a_lost_answer_is_asked_for_again_with_the_same_key(host: Host) -> None:
    """Also by a daemon that was started anew; the certificate that comes then is of use."""
    first = host.asked()
    host.begin()
    second = host.asked()
    keys = {identity.load_key((host.pem.parent / "renewing.key").read_bytes()).public_key().public_numbers()}
    assert first.csr != second.csr  # signed anew
    assert host.renewal.take(host.given(first.csr)) == ""
    assert {identity.load_key(host.pem.read_bytes()).public_key().public_numbers()} == keys


def test_a_crash_between_the_new_pair_and_its_key_s_end_costs_nothing(host: Host) -> None:
    """The key that was left over is that in force: the next certificate has another one."""
    asked = host.asked()
    left = host.pem.parent / "renewing.key"
    key = left.read_bytes()
    host.renewal.take(host.given(asked.csr))
    left.write_bytes(key)
    before = host.in_force()
    host.begin()
    host.renewal.take(host.given(host.asked().csr))
    assert host.in_force()[0] != before[0]


@pytest.mark.parametrize(
    ("what", "reason"),
    [
        ("unasked", "none was asked for"),
        ("another key", "for another key"),
        ("another host", "not for host"),
        ("another authority", "not a certificate of the authority"),
        ("nonsense", "no certificate"),
    ],
)
def test_a_certificate_that_does_not_fit_changes_nothing(host: Host, what: str, reason: str) -> None:
    """The one in force stays, and the manager is told why."""
    before = host.in_force()
    csr = "" if what == "unasked" else host.asked().csr
    stranger = identity.signing_request(identity.new_key())
    pem = {
        "unasked": lambda: host.given(stranger),
        "another key": lambda: host.given(stranger),
        "another host": lambda: host.authority.issue_host("manager", csr).decode(),
        "another authority": lambda: Authority.create().issue_host(HOST, csr).decode(),
        "nonsense": lambda: "-----BEGIN CERTIFICATE-----",
    }[what]()
    assert reason in host.renewal.take(pem)
    assert host.in_force() == before


def test_a_pair_of_files_is_not_touched(host: Host, tmp_path: Path) -> None:
    """Key and certificate from elsewhere, which could not be replaced in one step: said in the log."""
    apart = Config(
        **{name: getattr(host.config, name) for name in host.config.__struct_fields__}
        | {"key": tmp_path / "other.key"}
    )
    renewal = CertificateRenewal(apart, host.said.append, lambda: host.now + HOST_LIFE)
    with pytest.raises(identity.Unfit, match="two files"):
        renewal.ask_if_due()
    assert host.said == []


def test_o28_the_end_of_the_certificate_is_an_alarm_of_the_host(host: Host) -> None:
    """As long as it is far there is none."""
    assert host.renewal.expiry() is None
    host.now += HOST_LIFE - timedelta(days=6)
    told = host.renewal.expiry()
    assert told is not None
    assert (told.event_type, told.severity) == ("certificate_is_about_to_expire", "HIGH")
