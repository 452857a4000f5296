"""Certificates over a running bus: the next one comes while the session goes on, and one that has expired
opens no new session."""

import asyncio
import socket
import ssl
import subprocess
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from cryptography import x509

from manager_stub import pki
from manager_stub.state_dir import RENEWED
from tests.harness.installation import installed
from tests.harness.manager import command
from tests.harness.site import VSFW, Site, connect, site
from tests.harness.waiting import eventually
from tests.unit.manager.rest import Manager
from vsfwd import files, identity
from vsfwd.broker import BrokerLink
from vsfwd.config import Config
from vsfwd.protocol.envelope import Message
from vsfwd.protocol.messages import Hello, Reply, Request, digest_text
from vsfwd.renewal import CertificateRenewal

pytestmark = pytest.mark.slow

DEADLINE_S = 30.0


@pytest.fixture(scope="module")
def here(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Site]:
    with site(tmp_path_factory.mktemp("site")) as here:
        yield here


class Host:
    """The daemon's link and its renewal, without a kernel. `now`: the clock of the renewal."""

    def __init__(self, config: Config) -> None:
        self.now = datetime.now(UTC)
        nobody: Any = None
        self.link = BrokerLink(config, self._policy, self._request, nobody, self._greet)
        self.renewal = CertificateRenewal(config, self.link.send, lambda: self.now)
        self.config = config

    async def _policy(self, message: Message) -> bool:
        return True

    def _greet(self) -> list[Any]:
        return [Hello(0, 0, digest_text(0), "test")]

    async def _request(self, request: Request) -> None:
        if request.method == "certificate":
            self.link.send(Reply(request.id, self.renewal.take(request.certificate)))

    def serial(self) -> int:
        return identity.load_certificate(self.config.certificate.read_bytes()).serial_number


async def enrolled(manager: Manager, path: Path) -> Config:
    key = identity.new_key()
    token = (await manager.call("POST", f"{VSFW}/enrolment-tokens", {"display_name": "host"}))["token"]
    request = {"token": token, "csr": identity.signing_request(key)}
    given = await manager.call("POST", f"{VSFW}/enrol", request)
    pem = path / "host.pem"
    pem.write_bytes(identity.key_pem(key) + given["certificate"].encode())
    return Config(
        host_id=given["id"],
        broker_urls=tuple(given["broker_urls"]),
        ca=manager.directory.ca,
        certificate=pem,
        key=pem,
        manager_key=manager.directory.signing_public(),
    )


async def test_o28_a_certificate_is_renewed_without_a_gap(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """At two thirds of its life: the session that was open is the same one before and after, another that
    begins then has the new certificate, and the login is the same. A host that asks before is refused."""
    with installed(tmp_path) as installation:
        manager = Manager(installation.directory, installation.password)
        running = [asyncio.create_task(manager.parts.publisher.run())]
        try:
            await eventually(lambda: manager.parts.publisher.connected_to is not None, "the manager connects")
            host = Host(await enrolled(manager, tmp_path))
            running.append(asyncio.create_task(host.link.run()))
            await _renewed(manager, host, monkeypatch)
        finally:
            for task in running:
                task.cancel()
            await asyncio.gather(*running, return_exceptions=True)
            await manager.close()


async def _renewed(manager: Manager, host: Host, monkeypatch: pytest.MonkeyPatch) -> None:
    await eventually(lambda: host.link.connected_to is not None, "the host connects")
    over = asyncio.create_task(_lost(host.link))
    before = host.serial()
    host.now = datetime.now(UTC) + pki.HOST_LIFE * 0.7
    host.renewal.ask_if_due()
    known = manager.register.hosts
    await eventually(lambda: bool(known[host.config.host_id].left_out), "it is refused")
    assert "not yet two thirds" in known[host.config.host_id].left_out[0]
    monkeypatch.setattr("manager_stub.enrolment.renewals._now", lambda: host.now)
    host.renewal.ask_if_due()
    await eventually(lambda: host.serial() != before, "a new certificate")
    await (await connect(host.config)).close()
    assert not over.done()
    over.cancel()


async def _lost(link: BrokerLink) -> None:
    while link.connected_to is not None:  # noqa: ASYNC110  (what it waits for sets no event)
        await asyncio.sleep(0.005)


async def test_o28_an_expired_certificate_opens_no_session_and_a_new_enrolment_is_the_way_back(
    here: Site, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A host that slept: the broker refuses it, the link goes on trying and says why; enrolled anew it is the
    same host."""
    config = here.host("sleeper")
    monkeypatch.setattr(pki, "HOST_LIFE", timedelta(minutes=-1))
    key = identity.new_key()
    authority = here.installation.directory.authority()
    expired = authority.issue_host(config.host_id, identity.signing_request(key))
    files.replace(config.certificate, identity.key_pem(key) + expired)
    host = Host(config)
    running = asyncio.create_task(host.link.run())
    try:
        await eventually(lambda: bool(host.link.last_error), "the host is turned away")
        assert host.link.connected_to is None
        assert not running.done()
    finally:
        running.cancel()
        await asyncio.gather(running, return_exceptions=True)
    back = Host(await asyncio.to_thread(here.host, "sleeper-awake", config.host_id))
    assert back.config.host_id == config.host_id
    running = asyncio.create_task(back.link.run())
    try:
        await eventually(lambda: back.link.connected_to is not None, "the host is back")
    finally:
        running.cancel()
        await asyncio.gather(running, return_exceptions=True)


def shown_by(address: str, ca: Path) -> int:
    """Serial number of the certificate that a server shows to a new connection."""
    host, _, port = address.rpartition(":")
    context = ssl.create_default_context(cafile=ca)
    with (
        socket.create_connection((host, int(port)), timeout=DEADLINE_S) as plain,
        context.wrap_socket(plain, server_hostname=host) as secure,
    ):
        der = secure.getpeercert(binary_form=True)
    assert der is not None
    return x509.load_der_x509_certificate(der).serial_number


async def test_o28_the_manager_takes_renewed_certificates_without_a_gap(here: Site) -> None:
    """`vsfw-manager renew` while it serves: new connections to the REST interface show the new certificate,
    for the name and the key of before; the manager's session with the broker is the one it was."""
    directory = here.installation.directory
    listen = directory.config.listen
    before = {name: (directory.path / f"{name}.crt").read_bytes() for name in RENEWED}
    keys = {name: (directory.path / f"{name}.key").read_bytes() for name in RENEWED}
    old = await asyncio.to_thread(shown_by, listen, directory.ca)
    await asyncio.to_thread(subprocess.run, command(directory.config, "renew"), check=True)
    for name in RENEWED:
        first, second = (
            x509.load_pem_x509_certificate(pem)
            for pem in (before[name], (directory.path / f"{name}.crt").read_bytes())
        )
        assert first.serial_number != second.serial_number
        assert first.subject == second.subject
        assert {e.oid: e.value for e in first.extensions} == {e.oid: e.value for e in second.extensions}
        assert first.public_key() == second.public_key()
        assert (directory.path / f"{name}.key").read_bytes() == keys[name]
    await eventually(lambda: shown_by(listen, directory.ca) != old, "the manager shows its new one")
    await eventually(
        lambda: here.log.read_bytes().count(b"a renewed certificate is taken") == 2, "both sessions take it"
    )
    assert here.log.read_bytes().count(b"connected to the broker") == 1
    assert here.call("GET", "/api/v1/node")
