"""Reports that no vsfwd makes: what a broken host, or an attacker on one, can say, and what becomes of it."""

import json
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import msgspec
import pytest

import vsfwd
from manager_stub import vnics
from manager_stub.checks import Refused
from manager_stub.model import Entity, Vm
from manager_stub.reports import (
    MAX_REFUSALS,
    MAX_TEXT,
    BadReport,
    believable,
    parse_report,
    plain,
)
from manager_stub.vnics import MAX_ATTEMPTS
from manager_stub.world import World
from tests.unit.manager.rest import VSFW, Manager
from vsfwd.policy.model import MAX_HOST_VNICS
from vsfwd.protocol.messages import (
    MAX_CLAIMS,
    MAX_CLAIMS_AT_ONCE,
    MAX_LEASES,
    MAX_OF_TOOLS,
    Addresses,
    Applied,
    Binding,
    Bindings,
    Guest,
    digest_text,
)

HOST, OTHER_HOST = "33333333-0000-4000-8000-000000000001", "33333333-0000-4000-8000-000000000002"
MAC = "02:00:00:00:00:01"
POSITION = {"epoch": 1, "generation": 1, "digest": digest_text(0)}


def vnic_id(number: int) -> str:
    return f"22222222-0000-4000-8000-{number:012}"


def vm_id(number: int) -> str:
    return f"11111111-0000-4000-8000-{number:012}"


def binding(number: int, **more: Any) -> Binding:
    return Binding(**{"vnic": vnic_id(number), "vm": vm_id(number), "mac": MAC, "device": "veth", **more})


def parsed(kind: str, body: Any) -> Any:
    """A report as it comes from the bus."""
    text = body if isinstance(body, bytes) else json.dumps(body).encode()
    return parse_report(f"host.{HOST}.{kind}", HOST, text)[1]


def test_a_host_can_have_as_many_vnics_as_its_datapath() -> None:
    """The limit is SLOTS of bpf/types.h."""
    text = (Path(vsfwd.__file__).parents[1] / "bpf" / "types.h").read_text()
    (slots,) = re.findall(r"^#define SLOTS (\d+)", text, re.MULTILINE)
    assert int(slots) == MAX_HOST_VNICS


@pytest.mark.parametrize("kind", ["vnics", "addresses"])
def test_more_vnics_than_a_host_can_have_are_refused_whole(kind: str) -> None:
    """One more than fit; as many as fit are taken. The error has both numbers and the host."""

    def body(count: int) -> Any:
        each = {"vm": "", "mac": MAC, "device": "veth"}
        if kind == "addresses":
            return {"vnics": {vnic_id(number): [] for number in range(count)}}
        return {"vnics": [{"vnic": vnic_id(number), **each} for number in range(count)]}

    assert len(parsed(kind, body(MAX_HOST_VNICS)).vnics) == MAX_HOST_VNICS
    with pytest.raises(BadReport, match="1025 vNICs are over the 1024") as refused:
        parsed(kind, body(MAX_HOST_VNICS + 1))
    assert refused.value.host == HOST


def test_more_addresses_than_go_in_one_report_are_refused_unread() -> None:
    """Each costs time, and all hosts wait meanwhile; what fills eight megabytes is refused in none."""

    def body(count: int) -> bytes:
        claim = b'{"address":"10.0.0.1","source":"arp"}'
        return b'{"vnics":{"%b":[%b]}}' % (vnic_id(1).encode(), b",".join([claim] * count))

    assert len(parsed("addresses", body(MAX_CLAIMS_AT_ONCE)).vnics[vnic_id(1)]) == MAX_CLAIMS + MAX_LEASES
    broken = body(MAX_CLAIMS_AT_ONCE + 1)[:-1]
    with pytest.raises(BadReport, match="more than the 5000 addresses") as refused:
        parsed("addresses", broken)
    assert refused.value.host == HOST


@pytest.mark.parametrize(
    "text", [rb'"\ud800"', rb'"\udc00\ud800"', b'"\xed\xa0\x80"', b'"\xff"', rb'"\u12"', b'"a\x00b"']
)
def test_text_that_is_none_is_refused(text: bytes) -> None:
    """Half a character, bytes that are no UTF-8, a raw control character."""
    body = b'{"vnics": [{"vnic": "%b", "vm": "", "mac": "", "device": ' % vnic_id(1).encode()
    with pytest.raises(BadReport, match="vnics: "):
        parsed("vnics", body + text + b"}]}")
    with pytest.raises(BadReport, match="reply: "):
        parsed("reply", b'{"id": ' + text + b"}")


@pytest.mark.parametrize("digest", ["", "0" * 63, "0" * 65, "G" * 64, "0" * 64 + "\n"])
def test_a_digest_that_is_none_is_refused(digest: str) -> None:
    """It is stored and shown."""
    with pytest.raises(BadReport, match="digest"):
        parsed("applied", POSITION | {"digest": digest})


@pytest.mark.parametrize("version", ["1" * (MAX_TEXT + 1), "1\n2", "1\x1b[2J"])
def test_a_version_that_is_none_is_refused(version: str) -> None:
    """It is stored and shown."""
    with pytest.raises(BadReport, match="vsfwd"):
        parsed("hello", POSITION | {"vsfwd": version})


def test_refusals_are_bounded_and_the_position_beside_them_counts() -> None:
    """A host may refuse every rule; the manager keeps the first, and what they quote as plain text."""
    refusal = {"kind": "rules", "id": "1001\x1b[2J", "reason": "x\n" * 1000}
    report: Applied = parsed("applied", POSITION | {"refusals": [refusal] * 300})
    assert (report.generation, len(report.refusals)) == (1, MAX_REFUSALS)
    assert report.refusals[0].id == "1001�[2J"
    assert len(report.refusals[0].reason) == MAX_TEXT + 1
    assert report.refusals[0].reason.isprintable()


def test_an_error_is_plain_text_of_bounded_length() -> None:
    """Whatever the report has where the error is: it goes to a log and to an alarm."""
    state = "\x1b]0;" + "x" * 100_000
    body = {"vnics": [{"vnic": "", "vm": "", "mac": "", "device": "", "guest": {"power_state": state}}]}
    with pytest.raises(BadReport, match="Invalid enum value") as refused:
        parsed("vnics", body)
    assert len(str(refused.value)) <= MAX_TEXT + 1
    assert str(refused.value).isprintable()


@pytest.mark.parametrize(
    "text", ["a\nb", "a\x1b[2Jb", "a\x00b", "a\u202eb", "a\u200bb", "x" * (MAX_TEXT + 1)]
)
@pytest.mark.parametrize("field", ["device", "segment", "name", "os_name", "computer_name"])
def test_a_vnic_with_text_that_cannot_be_is_left_out(field: str, text: str) -> None:
    """Control characters, what turns the direction of writing, what has no width, what is too long; the vNIC
    beside it is taken."""
    guest = Guest(**{field: text}) if field not in ("device", "segment") else Guest()
    bad = binding(1, guest=guest, **({field: text} if field in ("device", "segment") else {}))
    good, (reason,) = believable(World(), [bad, binding(2)])
    assert good == (binding(2),)
    assert vnic_id(1) in reason


@pytest.mark.parametrize(
    ("bad", "reason"),
    [
        (binding(1, vnic="x" * 100_000), "UUID"),
        (binding(1, vnic="\x1b[2J"), "UUID"),
        (binding(1, vnic=vnic_id(1).upper().replace("2", "A")), "UUID"),
        (binding(1, vm="../../etc"), "VM"),
        (binding(1, mac="02-00"), "MAC"),
        (binding(1, mac=MAC + "\n"), "MAC"),
        (binding(1, addresses=tuple(f"10.0.{n // 250}.{n % 250}" for n in range(MAX_CLAIMS + 1))), "129"),
        (binding(2, mac="02:00:00:00:00:09"), "twice"),
    ],
)
def test_a_vnic_that_cannot_be_is_left_out(bad: Binding, reason: str) -> None:
    """By itself, with a reason that is plain and short; of two with one id the first is taken."""
    good, (told,) = believable(World(), [binding(2), bad, binding(3)])
    assert good == (binding(2), binding(3))
    assert reason in told
    assert len(told) <= MAX_TEXT + 1
    assert told.isprintable()


@pytest.mark.parametrize(
    "address",
    [
        *("0.0.0.0", "255.255.255.255", "224.0.0.1", "127.0.0.1"),
        *("::", "ff02::1", "::1", "fe80::1%eth0", "::ffff:102:304"),
    ],
)
def test_what_is_no_hosts_address_is_not_taken(address: str) -> None:
    """Hosts would refuse a vNIC that has it; the others of the vNIC count."""
    (kept,), (reason,) = believable(World(), [binding(1, addresses=("10.0.0.1", address))])
    assert kept.addresses == ("10.0.0.1",)
    assert "addresses" in reason
    claims = [{"address": each, "source": "arp"} for each in ("10.0.0.1", address)]
    seen: Addresses = parsed("addresses", {"vnics": {vnic_id(1): claims}})
    assert [claim.address for claim in seen.vnics[vnic_id(1)]] == ["10.0.0.1"]


@pytest.mark.parametrize("address", ["FD00::1", "10.0.0.01", "10.0.0.0/24", "web", ""])
def test_what_tools_say_in_another_form_is_not_taken(address: str) -> None:
    """Or what is no address at all; the others of the vNIC count."""
    report = parsed("vnics", {"vnics": [msgspec.to_builtins(binding(1, addresses=(address, "10.0.0.1")))]})
    (kept,), (reason,) = believable(World(), report.vnics)
    assert (kept.addresses, "addresses" in reason) == (("10.0.0.1",), True)


def test_vnics_share_what_tools_may_say_in_one_report() -> None:
    """A host with few vNICs may say all they can have, one that is full some of each; too many of one take
    nothing from another."""
    many = tuple(f"10.0.0.{number}" for number in range(1, MAX_CLAIMS + 1))
    few = [binding(number, addresses=many) for number in range(MAX_OF_TOOLS // MAX_CLAIMS)]
    assert believable(World(), few) == (tuple(few), [])
    full = [binding(number, addresses=many if number % 2 else many[:16]) for number in range(MAX_HOST_VNICS)]
    good, reasons = believable(World(), full)
    assert {each.addresses for each in good} == {many[:16]}
    assert len(reasons) == MAX_HOST_VNICS // 2
    assert "of 128 addresses only 16 count" in reasons[0]


def test_plain_text_stays_as_it_is() -> None:
    """Of any language."""
    for text in ("", "web-01", "Grüße, мир 世界", "x" * MAX_TEXT):
        assert plain(text) == text


@pytest.mark.slow
async def test_a_report_that_is_refused_leaves_the_last_good_one(manager: Manager) -> None:
    """It is counted, shown and an alarm with its reason; a good one resolves that."""
    manager.register.add_host(HOST, "host")
    manager.vnics.bound(HOST, Bindings((binding(1),)))
    for _ in range(2):
        manager.register.disbelieved(HOST, "vnics: 1025 vNICs are over the 1024 that a host can have")
    shown = await manager.call("GET", f"{VSFW}/hosts/{HOST}")
    assert (shown["reports_refused"], [each["vnic"] for each in shown["vnics"]]) == (2, [vnic_id(1)])
    assert "1025" in shown["left_out"][0]
    assert "1025" in (await alarm(manager))["description"]
    manager.vnics.bound(HOST, Bindings((binding(1, vm="no UUID"), binding(2))))
    assert vnic_id(1) in (await alarm(manager))["description"]
    manager.vnics.bound(HOST, Bindings((binding(2),)))
    assert await alarm(manager) is None


async def alarm(manager: Manager) -> Any:
    found = (await manager.call("GET", "/api/v1/alarms"))["results"]
    return next((each for each in found if each["event_type"] == "report_refused"), None)


@pytest.mark.slow
async def test_a_host_cannot_fill_the_inventory_report_by_report(
    manager: Manager, monkeypatch: pytest.MonkeyPatch
) -> None:
    """VMs that are plugged nowhere stay, so no more than so many are taken from one host; those it has count
    as before, another host's too, and who deletes them makes room."""
    monkeypatch.setattr(vnics, "MAX_LEFT", 3)
    for host in (HOST, OTHER_HOST):
        manager.register.add_host(host, "host")
    for number in range(6):
        manager.vnics.bound(HOST, Bindings((binding(0, guest=Guest(f"n{number}")), binding(number))))
    vms = manager.register.world.vms
    assert {path[-1] for path in vms} == {"0", "1", "2", "3"}
    assert vms[f"/vsfw/vms/{vm_id(0)}"].name == "n5"
    assert "1 new VMs" in manager.register.hosts[HOST].left_out[-1]
    again = Manager(manager.directory, "")  # nor by waiting for the manager to be started anew
    again.vnics.bound(HOST, Bindings((binding(6),)))
    assert "1 new VMs" in again.register.hosts[HOST].left_out[-1]
    await again.close()
    manager.vnics.bound(OTHER_HOST, Bindings((binding(9),)))
    await manager.call("DELETE", f"{VSFW}/vms/{vm_id(1)}")
    manager.vnics.bound(HOST, Bindings((binding(0), binding(7))))
    assert {path[-1] for path in manager.register.world.vms} == {"0", "2", "3", "7", "9"}
    assert manager.register.hosts[HOST].left_out == ()


@pytest.mark.slow
async def test_many_vms_that_cannot_be_cost_few_changes(
    manager: Manager, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Every change that is tried costs time with all there is: one that is refused among a thousand is found
    by halves, and with a thousand of them the rest is given up, named."""
    manager.register.add_host(HOST, "host")
    write, tried = manager.register.write, 0
    refused = {f"/vsfw/vms/{vm_id(700)}"}

    def writing(*, put: Mapping[str, Entity], **more: Any) -> None:
        nonlocal tried
        tried += 1
        if not refused.isdisjoint(put):
            raise Refused("", "it cannot be")
        write(put=put, **more)

    monkeypatch.setattr(manager.register, "write", writing)
    everything = Bindings(tuple(binding(number) for number in range(MAX_HOST_VNICS)))
    manager.vnics.bound(HOST, everything)
    assert len(manager.register.world.vms) == MAX_HOST_VNICS - 1
    assert tried < 25
    assert manager.register.hosts[HOST].left_out == (f"VM /vsfw/vms/{vm_id(700)}: it cannot be",)

    refused, tried = {f"/vsfw/vms/{vm_id(number)}" for number in range(MAX_HOST_VNICS)}, 0
    renamed = tuple(binding(number, guest=Guest("renamed")) for number in range(MAX_HOST_VNICS))
    manager.vnics.bound(HOST, Bindings(renamed))
    assert tried == MAX_ATTEMPTS
    assert len(manager.register.hosts[HOST].left_out) == MAX_HOST_VNICS
    vm = manager.register.world.vms[f"/vsfw/vms/{vm_id(1)}"].body
    assert isinstance(vm, Vm)
    assert vm.display_name == vm_id(1)
