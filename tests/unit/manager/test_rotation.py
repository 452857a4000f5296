"""A certificate that cannot be taken yet: connections go on with the one before, and it is taken later."""

import ssl
from contextlib import suppress
from pathlib import Path

import pytest
from structlog.testing import capture_logs

from manager_stub.pki import Authority
from manager_stub.rotation import Rotation

HOST = "192.0.2.1"


@pytest.fixture
def authority() -> Authority:
    return Authority.create()


def save(directory: Path, certificate: bytes, key: bytes | None = None) -> None:
    (directory / "server.crt").write_bytes(certificate)
    if key is not None:
        (directory / "server.key").write_bytes(key)


def shown(context: ssl.SSLContext) -> bytes | None:
    """The certificate of whoever serves with it."""
    to_server, to_client = ssl.MemoryBIO(), ssl.MemoryBIO()
    server = context.wrap_bio(to_server, to_client, server_side=True)
    client = ssl._create_unverified_context().wrap_bio(to_client, to_server)
    for end in client, server, client:
        with suppress(ssl.SSLWantReadError):
            end.do_handshake()
    return client.getpeercert(binary_form=True)


def test_a_certificate_that_is_not_usable_yet_is_taken_when_it_is(
    tmp_path: Path, authority: Authority
) -> None:
    """Its key comes after it, or a load fails for another reason: told once, and tried again."""
    before, after = (authority.issue_server("manager", [HOST]) for _ in range(2))
    save(tmp_path, *before)
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    context.load_cert_chain(tmp_path / "server.crt", tmp_path / "server.key")
    rotation = Rotation(tmp_path, {"server": context})
    save(tmp_path, after[0])
    with capture_logs() as told:
        for _ in range(2):
            rotation.look()
            assert shown(context) == ssl.PEM_cert_to_DER_cert(before[0].decode())
        save(tmp_path, *after)
        for _ in range(2):
            rotation.look()
            assert shown(context) == ssl.PEM_cert_to_DER_cert(after[0].decode())
    assert [line["event"] for line in told] == [
        "a renewed certificate is not taken",
        "a renewed certificate is taken",
    ]
