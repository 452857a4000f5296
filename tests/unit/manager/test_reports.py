"""What hosts report: whose word it is, and what the register makes of it."""

import os

import msgspec
import pytest
import zstandard

from manager_stub.register import Register
from manager_stub.reports import MAX_DECODED_REPORT, MAX_REPORT, BadReport, parse_report
from tests.unit.manager.rest import DOMAIN, VSFW, Manager
from vsfwd.policy.model import MAX_RULES
from vsfwd.protocol.envelope import pack
from vsfwd.protocol.messages import (
    MAX_SEEN,
    Applied,
    Binding,
    Bindings,
    Hello,
    Refusal,
    Reply,
    SeenFlow,
    digest_text,
)

HOST, OTHER = "33333333-0000-4000-8000-000000000001", "33333333-0000-4000-8000-000000000002"
VM, VNIC = "11111111-0000-4000-8000-000000000001", "22222222-0000-4000-8000-000000000001"
HELLO = Hello(0, 0, digest_text(0), "0.1")
BODY = msgspec.json.encode(HELLO)
FLOW = SeenFlow("out", 6, "10.0.0.1", "10.0.0.2", 80, 1, None, None, 1, 1)
PLUGGED = Bindings((Binding(VNIC, VM, "02:00:00:00:00:01", "veth0"),))


def test_a_report_is_of_the_host_the_broker_vouches_for() -> None:
    """Key and user_id name the same host."""
    assert parse_report(f"host.{HOST}.hello", HOST, BODY) == (HOST, HELLO)


@pytest.mark.parametrize(
    ("key", "user", "body", "reason"),
    [
        (f"host.{HOST}.hello", None, BODY, "user_id is None"),
        (f"host.{HOST}.hello", OTHER, BODY, "user_id is"),
        (f"host.{HOST}.hello", "", BODY, "user_id is"),
        (f"host.{HOST}.flow", HOST, BODY, "key"),
        (f"host.{HOST}.hello.more", HOST, BODY, "key"),
        ("host.*.hello", "*", BODY, "key"),
        ("", None, BODY, "key"),
        (f"host.{HOST}.applied", HOST, BODY, "applied: "),
        (f"host.{HOST}.hello", HOST, BODY[:-1], "hello: "),
        (f"host.{HOST}.hello", HOST, b"\xff", "hello: "),
        (f"host.{HOST}.hello", HOST, b"[" * 100_000, "hello: "),
        (f"host.{HOST}.hello", HOST, BODY.replace(b'"epoch":0', b'"epoch":"0"'), "hello: "),
        (f"host.{HOST}.hello", HOST, BODY.replace(b'"epoch"', b'"surprise":1,"epoch"'), "hello: "),
        (f"host.{HOST}.hello", HOST, BODY.replace(b'"epoch":0', b'"epoch":-1'), "hello: "),
        (f"host.{HOST}.hello", HOST, BODY.replace(b'"epoch":0', b'"epoch":9223372036854775807'), "hello: "),
        (f"host.{HOST}.hello", HOST, BODY + b" " * MAX_REPORT, "limit"),
    ],
)
def test_a_report_that_is_not_what_it_says_is_refused(
    key: str, user: str | None, body: bytes, reason: str
) -> None:
    """Another's name, no name, no such kind, a body that is broken or of another kind."""
    with pytest.raises(BadReport, match=reason):
        parse_report(key, user, body)


def test_a_report_may_be_compressed() -> None:
    """As a host packs what is long."""
    long = Reply("r", flows={VNIC: (FLOW,) * MAX_SEEN})
    encoding, body = pack(msgspec.json.encode(long))
    assert encoding == "zstd"
    assert parse_report(f"host.{HOST}.reply", HOST, body, encoding) == (HOST, long)


@pytest.mark.parametrize(
    ("body", "encoding", "reason"),
    [
        (zstandard.compress(b" " * (MAX_DECODED_REPORT + 1)), "zstd", "decodes to at most"),
        (b"nonsense", "zstd", "reply: "),
        (b"{}", "gzip", "encoding"),
        (os.urandom(MAX_REPORT + 1), "zstd", "limit"),
        (b'{"id":"r","flows":{"v":[["out",6,"a","b",70000,1,null,null,1,1]]}}', "json", "70000|65535"),
        (b'{"id":"r","flows":{"v":[["up",6,"a","b",1,1,null,null,1,1]]}}', "json", "up"),
        (b'{"id":"r","flows":{"v":[["out",6,"a","b",1,1,null,null,1,1,1]]}}', "json", "length"),
        (msgspec.json.encode(Reply("r", flows={VNIC: (FLOW,) * (MAX_SEEN + 1)})), "json", "10001 flows"),
    ],
    ids=["bomb", "no frame", "unknown", "long", "port", "direction", "more", "many"],
)
def test_an_answer_that_cannot_be_read_is_still_known_as_its_hosts(
    body: bytes, encoding: str, reason: str
) -> None:
    """Whoever waits for it can be told."""
    with pytest.raises(BadReport, match=reason) as refused:
        parse_report(f"host.{HOST}.reply", HOST, body, encoding)
    assert (refused.value.host, refused.value.kind) == (HOST, "reply")


@pytest.fixture
async def furnished(manager: Manager) -> Manager:
    """A host, and a VM with one vNIC."""
    manager.register.add_host(HOST, "host")
    vnic = {"id": VNIC, "mac": "02:00:00:00:00:01", "addresses": ["10.0.0.1"]}
    await manager.call("PUT", f"{VSFW}/vms/{VM}", {"display_name": "vm", "vnics": [vnic]})
    return manager


async def test_the_list_of_hosts_shows_what_each_should_have_and_has(furnished: Manager) -> None:
    """Wanted and applied by epoch, generation and digest; refusals as reported; not connected is unknown when
    the broker cannot be asked."""
    furnished.register.reported({HOST: HELLO})
    furnished.vnics.bound(HOST, PLUGGED)
    refusal = Refusal("rules", "1001", "a reason")
    furnished.register.reported({HOST: Applied(1, 1, digest_text(0), refusals=(refusal,))})
    (shown,) = (await furnished.call("GET", f"{VSFW}/hosts"))["results"]
    level = furnished.register.hosts[HOST].level
    assert shown["applied"] == {"epoch": 1, "generation": 1, "digest": digest_text(0)}
    assert shown["wanted"] == {"epoch": 1, "generation": 2, "digest": level.wanted.text}
    assert (shown["in_sync"], shown["connected"], shown["vsfwd"]) == (False, None, "0.1")
    assert shown["refusals"] == [{"kind": "rules", "id": "1001", "reason": "a reason"}]
    assert shown["vnics"][0]["vnic"] == VNIC


@pytest.mark.slow
async def test_a_host_on_which_too_much_is_plugged_keeps_its_last_state(furnished: Manager) -> None:
    """What a host reports cannot be refused: it stays as it was, says why, also after a restart, and is cured
    by the change that makes it fit."""
    rules = [{"id": f"r{number}", "action": "DROP"} for number in range(MAX_RULES)]
    await furnished.call("PUT", f"{DOMAIN}/security-policies/large", {"rules": rules})
    furnished.register.reported({HOST: HELLO})
    before = furnished.register.hosts[HOST].level
    furnished.vnics.bound(HOST, PLUGGED)
    assert furnished.register.hosts[HOST].level == before
    assert "at most" in furnished.register.hosts[HOST].problem

    again = Register(furnished.parts.store, furnished.directory.signing_key())
    assert "at most" in again.hosts[HOST].problem
    again.reported({HOST: Hello(7, 7, digest_text(7), "0.1")})
    assert again.hosts[HOST].level.outgoing == before.outgoing

    await furnished.call("DELETE", f"{DOMAIN}/security-policies/large/rules/r0")
    assert "at most" in furnished.register.hosts[HOST].problem
    await furnished.call("DELETE", f"{DOMAIN}/security-policies/large")
    assert furnished.register.hosts[HOST].problem == ""
    assert set(furnished.register.hosts[HOST].level.wanted.objects["rules"]) == {"1001", "1002", "1003"}
