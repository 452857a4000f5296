"""The certificate authority: what it certifies, and that a request is believed in nothing but its key."""

import base64
import os
import stat
from collections.abc import Iterator
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID
from cryptography.x509.verification import PolicyBuilder, Store, VerificationError

from manager_stub.pki import Authority
from manager_stub.state_dir import RENEWED, StateDir
from tests.harness.manager import alone

MANAGER = 65534
"""The user that the manager runs as."""
HOST = "33333333-0000-4000-8000-000000000001"
P256 = bytes.fromhex("06082a8648ce3d030107")
"""The name of the curve, in DER."""


@pytest.fixture
def authority() -> Authority:
    return Authority.create()


def test_a_host_certificate_has_the_managers_idea_of_the_subject(authority: Authority, csr: str) -> None:
    """The request claims to be the manager; the certificate says the host's id, for a client only."""
    certificate = x509.load_pem_x509_certificate(authority.issue_host(HOST, csr))
    names = certificate.subject.get_attributes_for_oid(NameOID.COMMON_NAME)
    assert [name.value for name in names] == [HOST]
    assert len(list(certificate.subject)) == 1
    usage = certificate.extensions.get_extension_for_class(x509.ExtendedKeyUsage).value
    assert list(usage) == [ExtendedKeyUsageOID.CLIENT_AUTH]
    assert certificate.public_key() == x509.load_pem_x509_csr(csr.encode()).public_key()


def test_a_host_certificate_is_no_servers(authority: Authority, csr: str) -> None:
    """It verifies against the CA as a client's, and does not as the server's of any name."""
    certificate = x509.load_pem_x509_certificate(authority.issue_host(HOST, csr))
    server = PolicyBuilder().store(ca_store(authority)).build_server_verifier(x509.DNSName("manager"))
    with pytest.raises(VerificationError):
        server.verify(certificate, [])


def test_a_server_certificate_is_good_for_its_addresses_only(authority: Authority) -> None:
    """By IP address or name as asked for, and for no other."""
    pem, _ = authority.issue_server("manager", ["192.0.2.1", "m.example"])
    certificate = x509.load_pem_x509_certificate(pem)
    policy = PolicyBuilder().store(ca_store(authority))
    policy.build_server_verifier(x509.DNSName("m.example")).verify(certificate, [])
    other = policy.build_server_verifier(x509.DNSName("x.example"))
    with pytest.raises(VerificationError):
        other.verify(certificate, [])
    names = certificate.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    assert [str(ip) for ip in names.get_values_for_type(x509.IPAddress)] == ["192.0.2.1"]


def test_a_request_with_a_weak_or_foreign_key_is_refused(authority: Authority) -> None:
    """Only P-256, so that no host chooses what everybody has to verify."""
    for key in (rsa.generate_private_key(65537, 2048), ec.generate_private_key(ec.SECP384R1())):
        request = (
            x509.CertificateSigningRequestBuilder().subject_name(x509.Name([])).sign(key, hashes.SHA256())
        )
        pem = request.public_bytes(serialization.Encoding.PEM).decode()
        with pytest.raises(ValueError, match="P-256"):
            authority.issue_host(HOST, pem)


def test_a_request_that_was_tampered_with_is_refused(authority: Authority, csr: str) -> None:
    """Its signature is not its own key's."""
    request = x509.load_pem_x509_csr(csr.encode())
    der = bytearray(request.public_bytes(serialization.Encoding.DER))
    der[der.index(b"manager")] ^= 1
    pem = x509.load_der_x509_csr(bytes(der)).public_bytes(serialization.Encoding.PEM).decode()
    with pytest.raises(ValueError, match="not signed by its own key"):
        authority.issue_host(HOST, pem)


def test_secrets_of_the_state_directory_are_the_owners_alone(tmp_path: Path) -> None:
    """Keys, the broker's password and the database: mode 0600; a second init touches nothing."""
    directory = StateDir(alone(tmp_path / "state"))
    password = directory.create()
    secret = {path.name for path in directory.path.iterdir() if stat.S_IMODE(path.stat().st_mode) == 0o600}
    assert secret >= {
        "ca.key",
        "server.key",
        "broker.key",
        "amqp.key",
        "signing.key",
        "broker-admin",
        "manager.db",
    }
    assert stat.S_IMODE(directory.path.stat().st_mode) == 0o700
    assert all(password.encode() not in path.read_bytes() for path in directory.path.iterdir())
    before = {path.name: path.read_bytes() for path in directory.path.iterdir()}
    with pytest.raises(FileExistsError):
        directory.create()
    assert {path.name: path.read_bytes() for path in directory.path.iterdir()} == before


@pytest.fixture
def of_another(tmp_path: Path) -> Iterator[StateDir]:
    """The manager's user's, where root works with a umask that leaves nothing to others."""
    directory = StateDir(alone(tmp_path / "state"))
    directory.path.mkdir()
    os.chown(directory.path, MANAGER, MANAGER)
    umask = os.umask(0o077)
    yield directory
    os.umask(umask)


def owners_and_certificates(directory: StateDir) -> tuple[set[tuple[int, int]], dict[str, str]]:
    """Whose the files are, and the modes of certificates."""
    found = {path.name: path.stat() for path in directory.path.iterdir()}
    modes = {name: f"{stat.S_IMODE(at.st_mode):o}" for name, at in found.items() if name.endswith(".crt")}
    return {(at.st_uid, at.st_gid) for at in found.values()}, modes


def test_what_root_makes_for_the_manager_is_the_managers(of_another: StateDir, tmp_path: Path) -> None:
    """systemd has made the directory before `init`, or before `join`, and changes no owner of what is in
    it."""
    of_another.create()
    made = dict.fromkeys(("ca.crt", "server.crt", "broker.crt", "amqp.crt"), "644")
    assert owners_and_certificates(of_another) == ({(MANAGER, MANAGER)}, made)
    of_another.save_database_url("postgresql://user:word@host/database")
    further = StateDir(alone(tmp_path / "further"))
    further.path.mkdir()
    os.chown(further.path, MANAGER, MANAGER)
    further.join(of_another.path)
    owners, joined = owners_and_certificates(further)
    assert (owners, joined["server.crt"]) == ({(MANAGER, MANAGER)}, "644")


def test_what_root_renews_for_the_manager_is_the_managers(of_another: StateDir) -> None:
    """It serves meanwhile, and is to take the new certificates."""
    of_another.create()
    for path in of_another.path.iterdir():
        os.chown(path, MANAGER, MANAGER)
    before = {name: (of_another.path / f"{name}.crt").read_bytes() for name in RENEWED}
    of_another.renew()
    assert all((of_another.path / f"{name}.crt").read_bytes() != before[name] for name in RENEWED)
    made = dict.fromkeys(("ca.crt", "server.crt", "broker.crt", "amqp.crt"), "644")
    assert owners_and_certificates(of_another) == ({(MANAGER, MANAGER)}, made)


@pytest.mark.parametrize(("old", "new"), [(b"\x02\x01\x00", b"\x02\x01\x4a"), (P256, b"\x06\x08" + bytes(8))])
def test_a_request_of_another_version_or_curve_is_refused(
    authority: Authority, csr: str, old: bytes, new: bytes
) -> None:
    """What the library has never heard of is the caller's mistake, too."""
    der = x509.load_pem_x509_csr(csr.encode()).public_bytes(serialization.Encoding.DER).replace(old, new, 1)
    body = base64.encodebytes(der).decode()
    pem = f"-----BEGIN CERTIFICATE REQUEST-----\n{body}-----END CERTIFICATE REQUEST-----\n"
    with pytest.raises(ValueError, match="not a certificate signing request"):
        authority.issue_host(HOST, pem)


def ca_store(authority: Authority) -> Store:
    return Store([x509.load_pem_x509_certificate(authority.pem)])
