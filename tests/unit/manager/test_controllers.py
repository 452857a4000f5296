"""The list of controllers, and certificates that control-plane agents ask for. The test is the agents."""

from typing import Any
from uuid import uuid4

import msgspec
import pytest
from cryptography.hazmat.primitives.asymmetric import ec

from manager_stub.components import control_plane
from manager_stub.components.control_plane import ControlPlane
from manager_stub.enrolment.credentials import Credential, Credentials
from manager_stub.pki import Authority
from tests.unit.manager.rest import VSFW, Manager
from vsfwd import identity
from vsfwd.protocol.components import ComponentAnswer, ComponentMessage
from vsfwd.protocol.control_plane import PURPOSE, Identity, common_name
from vsfwd.protocol.sealing import open_secret

CONTROLLERS = f"{VSFW}/controllers"
HOST, OTHER = "33333333-0000-4000-8000-000000000001", "33333333-0000-4000-8000-000000000002"
ONE, TWO = {"id": "one", "address": "10.0.0.1"}, {"id": "two", "address": "fd00::1", "port": 4321}
SHOWN = {"port": 1234, "thumbprint": ""}


@pytest.fixture(autouse=True)
def _hosts(manager: Manager) -> None:
    for host in (HOST, OTHER):
        manager.register.add_host(host, f"host{host[-1]}")


def ask(manager: Manager, topic: str, host: str = HOST) -> ComponentAnswer:
    """As an agent asks."""
    manager.parts.switchboard.take(
        [(host, ComponentMessage(str(uuid4()), "control-plane-agent", topic, {}, 10))]
    )
    *_, letter = manager.parts.switchboard.outgoing.of(host)
    manager.parts.switchboard.outgoing.remove(host, letter)
    assert isinstance(letter.event, ComponentAnswer)
    return letter.event


async def test_a_new_list_goes_to_every_host_and_to_whoever_asks(manager: Manager) -> None:
    """With a generation that is higher than the one before; the same list again is no news."""
    assert await manager.call("GET", CONTROLLERS) == {"generation": 0, "controllers": []}
    first = await manager.call("PUT", CONTROLLERS, {"controllers": [ONE]})
    assert first["controllers"] == [{**ONE, **SHOWN}]
    second = await manager.call("PUT", CONTROLLERS, {"controllers": [ONE, TWO]})
    assert second["generation"] > first["generation"] > 0
    assert await manager.call("PUT", CONTROLLERS, {"controllers": [ONE, TWO]}) == second
    sent = [(host, letter.event) for host, letter in manager.parts.switchboard.outgoing]
    assert [host for host, _ in sent] == [HOST] * 2 + [OTHER] * 2
    told = {"generation": second["generation"], "controllers": [ONE, TWO]}
    assert sent[-1][1].body == told
    assert ask(manager, "controllers").body == told


async def test_a_clock_that_was_set_back_makes_no_older_list(
    manager: Manager, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Agents would take it for one they have had."""
    first = await manager.call("PUT", CONTROLLERS, {"controllers": [ONE]})
    monkeypatch.setattr(control_plane, "now_ms", lambda: 5)
    second = await manager.call("PUT", CONTROLLERS, {"controllers": [TWO]})
    assert second["generation"] == first["generation"] + 1


async def test_it_is_kept(manager: Manager) -> None:
    """A manager that starts anew gives the same list; who changed it is in the audit log."""
    put = await manager.call("PUT", CONTROLLERS, {"controllers": [ONE]})
    parts = manager.parts
    again = ControlPlane(
        parts.store, manager.register, parts.switchboard, Authority.create(), Credentials(parts.store)
    )
    assert again.list.generation == put["generation"]
    (line,) = (await manager.call("GET", f"{VSFW}/audit-log?path=/vsfw/controllers"))["results"]
    assert (line["user"], line["before"]) == ("admin", None)
    assert line["after"]["controllers"] == [ONE]


@pytest.mark.parametrize(
    ("body", "status", "reason"),
    [
        ({}, 400, "controllers: Field required"),
        ({"controllers": [{"id": "one"}]}, 400, "controllers.0.address"),
        ({"controllers": [{**ONE, "address": "10.0.0.0/8"}]}, 400, "controllers.0.address"),
        ({"controllers": [{**ONE, "address": "controller"}]}, 400, "controllers.0.address"),
        ({"controllers": [{**ONE, "port": 0}]}, 400, "controllers.0.port"),
        ({"controllers": [{**ONE, "thumbprint": "SHA256"}]}, 400, "controllers.0.thumbprint"),
        ({"controllers": [ONE, ONE]}, 400, "an id is there twice"),
        ({"controllers": [{**ONE, "id": str(number)} for number in range(17)]}, 400, "controllers"),
        ({"controllers": [], "generation": 7}, 412, "generation: the list is at generation"),
    ],
    ids=str,
)
async def test_a_bad_list_is_refused_by_field(manager: Manager, body: Any, status: int, reason: str) -> None:
    """Nothing is stored, and nothing sent."""
    before = await manager.call("PUT", CONTROLLERS, {"controllers": [ONE]})
    manager.parts.switchboard.outgoing.take(2)
    answer = await manager.answer("PUT", CONTROLLERS, body)
    assert answer.status_code == status
    assert reason in answer.json()["error_message"]
    assert await manager.call("GET", CONTROLLERS) == before
    assert not manager.parts.switchboard.outgoing


def enrolled(manager: Manager) -> tuple[ControlPlane, ec.EllipticCurvePrivateKey]:
    """The host with a key of its own, of which the manager has the certificate."""
    key, parts, authority = identity.new_key(), manager.parts, manager.directory.authority()
    pem = authority.issue_host(HOST, identity.signing_request(key)).decode()
    with parts.store.begin() as transaction:
        transaction.put_credential(vars(Credential(HOST, 1, pem)))
    credentials = Credentials(parts.store)
    return ControlPlane(parts.store, manager.register, parts.switchboard, authority, credentials), key


async def test_a_certificate_comes_with_its_key_sealed_to_the_host(manager: Manager) -> None:
    """Nobody else opens it, and the manager keeps the certificate, in the audit log, and not the key."""
    _, key = enrolled(manager)
    answer = ask(manager, "identity")
    given = msgspec.convert(answer.body, Identity)
    opened = open_secret(key, given.sealed_key, host=HOST, purpose=PURPOSE)
    certificate = identity.load_certificate(given.certificate.encode())
    assert identity.load_key(opened).public_key() == certificate.public_key()
    assert identity.login_of(certificate) == common_name(HOST)
    lines = str(await manager.call("GET", f"{VSFW}/audit-log"))
    assert given.certificate.splitlines()[1] in lines
    assert "PRIVATE KEY" not in lines
    assert "PRIVATE KEY" not in str(answer)
    secret = opened.splitlines()[1]
    assert secret not in b"".join(path.read_bytes() for path in manager.directory.path.glob("manager.db*"))


async def test_a_host_is_given_one_at_a_time(manager: Manager) -> None:
    """One that asks and asks makes no keys: the second within a minute is refused; another host's is not. Of
    one whose key nobody knows it is refused with the reason."""
    enrolled(manager)
    assert not ask(manager, "identity").error
    assert "within the last 60 s" in ask(manager, "identity").error
    assert "enrol it anew" in ask(manager, "identity", OTHER).error
