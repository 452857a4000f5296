"""Enrolment at the manager: who is let in with which token, and that every crash on the way is made good."""

import asyncio
import itertools
import json
from typing import Any

import httpx
import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

from manager_stub.broker import Broker, Unreachable
from manager_stub.enrolment import tokens as tokens_module
from tests.unit.manager.rest import VSFW, Manager
from vsfwd.protocol.fingerprint import fingerprint

TOKENS, ENROL = f"{VSFW}/enrolment-tokens", f"{VSFW}/enrol"


class Killed(BaseException):
    """The manager's process ends here."""


class Calls(list[str]):
    """What the broker was told. `fault` is raised at the call with that number, before the broker has it, or
    after (`late`)."""

    def __init__(self) -> None:
        super().__init__()
        self.fault: BaseException | None = None
        self.at = -1
        self.late = False

    def __call__(self, what: str) -> None:
        due = self.fault is not None and len(self) == self.at
        if due and not self.late:
            self.at = -1
            raise self.fault
        self.append(what)
        if due:
            self.at = -1
            raise self.fault


@pytest.fixture
def told(monkeypatch: pytest.MonkeyPatch) -> Calls:
    """A broker that takes everything."""
    calls = Calls()

    async def call(self: Broker, what: str, request: Any, gone_is_fine: bool = False) -> httpx.Response:
        calls(what)
        return httpx.Response(200, json=[])

    monkeypatch.setattr(Broker, "_call", call)
    return calls


@pytest.fixture
def instant(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """Delays, which are not waited for."""
    slept: list[float] = []

    async def sleep(seconds: float) -> None:
        slept.append(seconds)

    monkeypatch.setattr(asyncio, "sleep", sleep)
    return slept


def request_of(key: ec.EllipticCurvePrivateKey) -> str:
    """Its subject claims to be the manager."""
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "manager")])
    csr = x509.CertificateSigningRequestBuilder().subject_name(name).sign(key, hashes.SHA256())
    return csr.public_bytes(serialization.Encoding.PEM).decode()


def new_request() -> str:
    return request_of(ec.generate_private_key(ec.SECP256R1()))


async def token(manager: Manager, **fields: Any) -> str:
    return str((await manager.call("POST", TOKENS, fields))["token"])


async def ask(manager: Manager, text: str, csr: str, **more: Any) -> httpx.Response:
    """As a host does: with nothing but the token."""
    transport = httpx.ASGITransport(manager.interface)
    async with httpx.AsyncClient(transport=transport, base_url="https://manager") as nobody:
        return await nobody.post(ENROL, json={"token": text, "csr": csr, **more})


async def enrolled(manager: Manager, text: str, csr: str, **more: Any) -> dict[str, Any]:
    answer = await ask(manager, text, csr, **more)
    assert answer.is_success, answer.text
    given: dict[str, Any] = answer.json()
    return given


def common_name(given: dict[str, Any]) -> str:
    certificate = x509.load_pem_x509_certificate(given["certificate"].encode())
    [name] = certificate.subject.get_attributes_for_oid(NameOID.COMMON_NAME)
    return str(name.value)


async def test_a_token_lets_a_host_in(manager: Manager, told: Calls) -> None:
    """With an id, a certificate under that id whatever the request said, and what it needs to begin; the
    broker has user, rights and queues."""
    key = ec.generate_private_key(ec.SECP256R1())
    given = await enrolled(manager, await token(manager, display_name="node-7"), request_of(key))
    host = manager.register.hosts[given["id"]]
    assert host.display_name == "node-7"
    assert common_name(given) == host.id
    assert x509.load_pem_x509_certificate(given["certificate"].encode()).public_key() == key.public_key()
    assert given["broker_urls"] == ["amqps://127.0.0.1:1"]
    assert given["manager_key"] == manager.directory.signing_public()
    assert told[0] == f"declare users/{host.id}"
    assert told[-1].startswith(f"bind vsfw.host.{host.id}.app")


async def test_the_authority_is_there_to_compare(manager: Manager) -> None:
    """For everybody; the hash that comes with a token is that of its key."""
    hash = (await manager.call("POST", TOKENS, {}))["ca_hash"]
    transport = httpx.ASGITransport(manager.interface)
    async with httpx.AsyncClient(transport=transport, base_url="https://manager") as nobody:
        answer = (await nobody.get(f"{VSFW}/ca")).json()
    certificate = x509.load_pem_x509_certificate(answer["pem_encoded"].encode())
    key = certificate.public_key()
    assert isinstance(key, ec.EllipticCurvePublicKey)
    assert hash == f"sha256:{fingerprint(key)}"


async def test_a_token_is_good_for_one_host(manager: Manager, told: Calls, instant: list[float]) -> None:
    """Who has read it meanwhile comes too late. The host itself may ask again, and is given the same."""
    text, mine = await token(manager), new_request()
    first = await enrolled(manager, text, mine, display_name="a")
    thief = await ask(manager, text, new_request(), display_name="b")
    assert (thief.status_code, "another host has used it" in thief.text) == (403, True)
    assert "vsfwctl tokens create" in thief.json()["error_message"]
    assert await enrolled(manager, text, mine, display_name="a") == first
    assert list(manager.register.hosts) == [first["id"]]


async def test_a_token_ends(
    manager: Manager, told: Calls, instant: list[float], monkeypatch: pytest.MonkeyPatch
) -> None:
    """After its time, used or not, and when it is revoked; expired ones are neither listed nor kept."""
    text = await token(manager, lifetime_s=60)
    later = tokens_module.now_ms() + 60_001
    revoked = await manager.call("POST", TOKENS, {})
    await manager.call("DELETE", f"{TOKENS}/{revoked['id']}")
    assert (await ask(manager, revoked["token"], new_request(), display_name="a")).status_code == 403
    monkeypatch.setattr(tokens_module, "now_ms", lambda: later)
    assert (await ask(manager, text, new_request(), display_name="a")).status_code == 403
    assert (await manager.call("GET", TOKENS))["results"] == []
    await manager.call("POST", TOKENS, {})
    assert len(manager.parts.store.enrolment_tokens()) == 1
    assert manager.register.hosts == {}


async def test_expired_tokens_take_no_room(
    manager: Manager, told: Calls, monkeypatch: pytest.MonkeyPatch
) -> None:
    """There can be so many that have not expired."""
    monkeypatch.setattr(tokens_module, "MAX_TOKENS", 2)
    for _ in range(2):
        await token(manager, lifetime_s=60)
    assert (await manager.answer("POST", TOKENS, {})).status_code == 400
    later = tokens_module.now_ms() + 60_001
    monkeypatch.setattr(tokens_module, "now_ms", lambda: later)
    fresh = await manager.call("POST", TOKENS, {})
    assert [row["id"] for row in manager.parts.store.enrolment_tokens()] == [fresh["id"]]


async def test_a_token_may_be_for_one_name(manager: Manager, told: Calls) -> None:
    """Another name is refused, and leaves the token as it was; a token for any host needs one."""
    bound, free = await token(manager, display_name="node-7"), await token(manager)
    wrong = await ask(manager, bound, new_request(), display_name="node-8")
    assert (wrong.status_code, "display_name: the token is for" in wrong.text) == (400, True)
    nameless = await ask(manager, free, new_request())
    assert (nameless.status_code, "display_name: " in nameless.text) == (400, True)
    given = await enrolled(manager, bound, new_request(), display_name="node-7")
    assert manager.register.hosts[given["id"]].display_name == "node-7"


async def test_a_host_says_a_name_that_can_be_told_from_others(manager: Manager, told: Calls) -> None:
    """As of every object: nothing unseen in it, and not what a reader takes for another host. The token stays
    as it was."""
    await enrolled(manager, await token(manager), new_request(), display_name="node-7")
    text = await token(manager)
    for name, status in (("a\u200bb", 400), ("a\u202eb", 400), ("a\x85b", 400), ("n\u043ede-7", 409)):
        answer = await ask(manager, text, new_request(), display_name=name)
        assert (answer.status_code, "display_name" in answer.text) == (status, True)
    assert len(manager.register.hosts) == 1
    await enrolled(manager, text, new_request(), display_name="n\u00f6de-7")


async def test_a_request_that_is_none_uses_no_token(manager: Manager, told: Calls) -> None:
    """The operator's typing error is not the end of the token."""
    text = await token(manager, display_name="a")
    assert (await ask(manager, text, "nonsense")).status_code == 400
    await enrolled(manager, text, new_request())


async def test_of_a_token_only_a_hash_is_kept(manager: Manager, told: Calls) -> None:
    """Its secret is told once: it stands neither in the list, nor in the database, nor in the audit log."""
    text = await token(manager, display_name="a")
    id, _, secret = text.partition(".")
    [listed] = (await manager.call("GET", TOKENS))["results"]
    assert (listed["id"], listed["used"], secret in json.dumps(listed)) == (id, False, False)
    await enrolled(manager, text, new_request())
    for file in manager.directory.path.glob("manager.db*"):
        assert secret.encode() not in file.read_bytes()


async def test_tokens_and_what_came_of_them_are_in_the_audit_log(manager: Manager, told: Calls) -> None:
    """Who made one, which host came with it, who revoked another."""
    text = await token(manager, display_name="a")
    given = await enrolled(manager, text, new_request())
    revoked = await manager.call("POST", TOKENS, {})
    await manager.call("DELETE", f"{TOKENS}/{revoked['id']}")
    log = (await manager.call("GET", f"{VSFW}/audit-log"))["results"]
    told_of = [(each["user"], each["path"]) for each in reversed(log)]
    id = text.partition(".")[0]
    by_token = f"enrolment token {id}"
    path = f"/vsfw/enrolment-tokens/{id}"
    assert told_of[-5:-2] == [("admin", path), (by_token, path), (by_token, f"/vsfw/hosts/{given['id']}")]
    assert told_of[-2:] == [("admin", f"/vsfw/enrolment-tokens/{revoked['id']}")] * 2


async def test_a_guess_is_refused_at_once(manager: Manager, instant: list[float]) -> None:
    """Of 256 random bits nobody guesses any: who tries is kept waiting by nothing, so that no connection is
    held for who has no credentials, and is not told whether there is such a token."""
    text = await token(manager, display_name="a")
    wrong = text[:-4] + ("AAAA" if text[-4:] != "AAAA" else "BBBB")
    known = [await ask(manager, wrong, new_request()) for _ in range(4)]
    unknown = await ask(manager, f"{'0' * 12}.{'x' * 43}", new_request())
    assert {answer.status_code for answer in (*known, unknown)} == {403}
    assert unknown.json() == known[-1].json()
    assert instant == []


# A crash at every step


BROKER_CALLS = 9
"""User, rights on keys, rights, two limits, two queues, two bindings."""


@pytest.mark.slow
async def test_a_manager_that_is_killed_at_any_call_lets_the_host_in_next_time(
    manager: Manager, told: Calls
) -> None:
    """It dies before the broker has that call, or after. What is on disk is all the next one has: the host
    asks again, there is one host more, and the broker has everything of it."""
    for at, late in itertools.product(range(BROKER_CALLS), (False, True)):
        text, csr = await token(manager, display_name="a"), new_request()
        told.clear()
        told.fault, told.at, told.late = Killed(), at, late
        with pytest.raises(Killed):
            await ask(manager, text, csr)
        known = sorted(manager.register.hosts)
        await manager.close()
        told.clear()
        manager = Manager(manager.directory, manager.admin[1])
        given = await enrolled(manager, text, csr)
        assert sorted(manager.register.hosts) == known
        assert given["id"] in known
        assert len(told) == BROKER_CALLS
    assert len(manager.register.hosts) == 2 * BROKER_CALLS
    await manager.close()


async def test_a_manager_that_is_killed_while_it_writes_has_done_nothing(
    manager: Manager, told: Calls, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Host, certificate and the token's use are one transaction."""
    text, csr = await token(manager, display_name="a"), new_request()
    with monkeypatch.context() as patch:

        def kill(*_: Any) -> None:
            raise Killed

        patch.setattr("manager_stub.store.Transaction.put_enrolment_token", kill)
        with pytest.raises(Killed):
            await ask(manager, text, csr)
    assert manager.parts.store.hosts() == manager.parts.store.credentials() == told == []
    await enrolled(manager, text, csr)


async def test_a_broker_that_is_away_costs_the_token_nothing(manager: Manager, told: Calls) -> None:
    """503, which says to ask again; then it is one host."""
    text, csr = await token(manager, display_name="a"), new_request()
    told.fault, told.at = Unreachable("gone"), 3
    refused = await ask(manager, text, csr)
    assert (refused.status_code, "ask again" in refused.text) == (503, True)
    await enrolled(manager, text, csr)
    assert len(manager.register.hosts) == 1


async def test_two_requests_side_by_side_are_one_host(manager: Manager, told: Calls) -> None:
    """A host that was impatient."""
    text, csr = await token(manager, display_name="a"), new_request()
    first, second = await asyncio.gather(*(enrolled(manager, text, csr) for _ in range(2)))
    assert first == second
    assert len(manager.register.hosts) == 1


async def test_a_host_that_asks_and_asks_costs_the_broker_nothing(manager: Manager, told: Calls) -> None:
    """It gets its answer each time; what the broker has is made once, until a minute has gone."""
    text, csr = await token(manager, display_name="a"), new_request()
    answers = await asyncio.gather(*(enrolled(manager, text, csr) for _ in range(10)))
    assert all(answer == answers[0] for answer in answers)
    assert len(told) == BROKER_CALLS


# A host that is enrolled anew


async def anew(manager: Manager, host: str, csr: str) -> dict[str, Any]:
    return await enrolled(manager, await token(manager, host=host), csr)


async def test_a_host_that_is_enrolled_anew_keeps_its_id_and_nothing_else(
    manager: Manager, told: Calls
) -> None:
    """Its login is another, and the earlier one goes before the new one comes: no certificate of before is
    good any more, whoever has its key."""
    host = (await enrolled(manager, await token(manager, display_name="a"), new_request()))["id"]
    told.clear()
    second = await anew(manager, host, new_request())
    assert (second["id"], common_name(second)) == (host, f"{host}.2")
    assert told[:2] == [f"delete users/{host}", f"declare users/{host}.2"]
    shown = (await manager.call("GET", f"{VSFW}/hosts/{host}"))["certificate"]
    serial = x509.load_pem_x509_certificate(second["certificate"].encode()).serial_number
    assert (shown["subject"], shown["serial_number"]) == (f"{host}.2", f"{serial:x}")
    told.clear()
    third = await anew(manager, host, new_request())
    assert common_name(third) == f"{host}.3"
    assert told[:3] == [f"delete users/{host}", f"delete users/{host}.2", f"declare users/{host}.3"]
    assert list(manager.register.hosts) == [host]


async def test_a_token_of_an_earlier_enrolment_gives_nothing_away(
    manager: Manager, told: Calls, instant: list[float]
) -> None:
    """Asked again with the first token and key, after the host was enrolled anew: refused."""
    text, csr = await token(manager, display_name="a"), new_request()
    host = (await enrolled(manager, text, csr))["id"]
    await anew(manager, host, new_request())
    assert (await ask(manager, text, csr)).status_code == 403


async def test_a_host_that_is_gone_is_not_enrolled_anew(
    manager: Manager, told: Calls, instant: list[float]
) -> None:
    """Neither with a token made before it was removed, nor with the one it came with."""
    text, csr = await token(manager, display_name="a"), new_request()
    host = (await enrolled(manager, text, csr))["id"]
    later = await token(manager, host=host)
    await manager.call("DELETE", f"{VSFW}/hosts/{host}")
    assert (await ask(manager, text, csr)).status_code == 403
    assert (await ask(manager, later, new_request())).status_code == 400
    assert manager.register.hosts == {}


async def test_what_hosts_have_is_known_after_a_restart(manager: Manager, told: Calls) -> None:
    """Logins, certificates and tokens: from the database."""
    host = (await enrolled(manager, await token(manager, display_name="a"), new_request()))["id"]
    given = await anew(manager, host, new_request())
    await manager.close()
    reborn = Manager(manager.directory, "")
    try:
        assert reborn.parts.broker.logins(host) == (host, f"{host}.2")
        assert given["certificate"] in [row["certificate"] for row in reborn.parts.store.credentials()]
        assert len(reborn.parts.store.enrolment_tokens()) == 2
    finally:
        await reborn.close()
