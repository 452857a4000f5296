"""What a claim of an address is worth, and what becomes of it. Row X33 of the attack catalogue."""

from dataclasses import replace
from typing import Any

import msgspec
import pytest

from manager_stub.addresses import State, alive, judge, told
from manager_stub.rows import claim_rows
from manager_stub.span import realise
from manager_stub.world import Claimed, World
from tests.unit.manager.rest import VSFW, Manager
from tests.unit.manager.test_span import VNICS, world
from vsfwd.protocol.messages import LEASED, Addresses, Binding, Bindings, Claim, Source

HOST, ROGUE = "33333333-0000-4000-8000-000000000001", "33333333-0000-4000-8000-000000000002"
VM = tuple(f"11111111-0000-4000-8000-00000000000{number}" for number in range(3))
SEGMENT = "/infra/segments/blue"
T, W, R = State.TRUSTED, State.WAITING, State.REFUSED


def card(number: int, *typed: str, **more: Any) -> dict[str, Any]:
    mac = f"02:00:00:00:00:0{number}"
    return {"id": VNICS[number], "mac": mac, "segment_path": SEGMENT, "addresses": list(typed), **more}


def seen(cards: list[dict[str, Any]], *claims: tuple[int, str, Source], mode: str = "DISABLED") -> World:
    """A world of VMs with one vNIC each, in which claims came in this order."""
    vms = [(f"/vsfw/vms/{id}", {"vnics": [card]}) for id, card in zip(VM, cards, strict=False)]
    base = world((SEGMENT, {"spoofguard": mode}), *vms)
    known: dict[str, dict[str, Claimed]] = {}
    for time, (number, address, source) in enumerate(claims):
        known.setdefault(VNICS[number], {})[address] = Claimed(source, 0, HOST, time)
    return replace(base, claims=known)


def leased_by_hosts(*claims: tuple[int, str, Source], mode: str = "DISABLED") -> World:
    """The first vNIC on a rogue's host, the second on another; all leases are said to be their server's."""
    here = seen([card(0), card(1), card(2, dhcp_server=True)], *claims, mode=mode)
    hosts = {VNICS[0]: ROGUE, VNICS[1]: HOST}
    known = {
        vnic: {
            address: replace(each, host=hosts[vnic], server=SERVER if each.source in LEASED else "")
            for address, each in found.items()
        }
        for vnic, found in here.claims.items()
    }
    return replace(here, claims=known, plugged={vnic: frozenset({host}) for vnic, host in hosts.items()})


def states(world: World, number: int = 0) -> dict[str, State]:
    return {each.address: each.state for each in judge(world).get(VNICS[number], ())}


def test_x33_disabled_trusts_what_is_seen_unless_something_is_typed() -> None:
    """Without SpoofGuard a vNIC has the addresses it is seen with; who types addresses wants those."""
    arp, nd = (0, "10.0.0.1", Source.ARP), (0, "fd00::1", Source.ND)
    assert states(seen([card(0)], arp, nd)) == {"10.0.0.1": T, "fd00::1": T}
    assert states(seen([card(0, "10.0.0.9")], arp, nd)) == {"10.0.0.1": W, "fd00::1": W}


def test_x33_tofu_pins_the_first_of_each_kind() -> None:
    """IPv4, link-local, other IPv6: the first of each; typed ones take their kind's place."""
    claims = [
        (0, "10.0.0.1", Source.ARP),
        (0, "10.0.0.2", Source.ARP),
        (0, "fe80::1", Source.ND),
        (0, "fd00::1", Source.ND),
        (0, "fd00::2", Source.ND),
        (0, "fe80::2", Source.ND),
    ]
    first = {"10.0.0.1": T, "10.0.0.2": W, "fe80::1": T, "fd00::1": T, "fd00::2": W, "fe80::2": W}
    assert states(seen([card(0)], *claims, mode="TOFU")) == first
    typed = first | {"10.0.0.1": W}
    assert states(seen([card(0, "10.0.0.9")], *claims, mode="TOFU")) == typed


def test_x33_manual_waits_for_approval() -> None:
    """Nothing is trusted by itself."""
    waiting = seen([card(0)], (0, "10.0.0.1", Source.DHCP), mode="MANUAL")
    assert states(waiting) == {"10.0.0.1": W}
    approved = {VNICS[0]: {"10.0.0.1": replace(waiting.claims[VNICS[0]]["10.0.0.1"], approved=True)}}
    assert states(replace(waiting, claims=approved)) == {"10.0.0.1": T}


def test_x33_a_vnic_has_its_own_mode_before_its_segments() -> None:
    """Both ways."""
    claim = (0, "10.0.0.1", Source.ARP)
    assert states(seen([card(0, spoofguard="MANUAL")], claim)) == {"10.0.0.1": W}
    assert states(seen([card(0, spoofguard="DISABLED")], claim, mode="MANUAL")) == {"10.0.0.1": T}


@pytest.mark.parametrize("mode", ["DISABLED", "TOFU"])
def test_x33_a_second_claimant_is_refused(mode: str) -> None:
    """Who claims what another vNIC of the segment was seen with first gets nothing."""
    claims = [(1, "10.0.0.1", Source.ARP), (0, "10.0.0.1", Source.ARP)]
    here = seen([card(0), card(1)], *claims, mode=mode)
    assert (states(here, 1), states(here, 0)) == ({"10.0.0.1": T}, {"10.0.0.1": R})


@pytest.mark.parametrize("mode", ["DISABLED", "TOFU", "MANUAL"])
def test_x33_what_is_typed_belongs_to_whom_it_was_typed_for(mode: str) -> None:
    """However early another claims it."""
    here = seen([card(0), card(1, "10.0.0.1")], (0, "10.0.0.1", Source.DHCP), mode=mode)
    assert states(here) == {"10.0.0.1": R}


SERVER, STRANGER = "02:00:00:00:00:02", "02:00:00:00:99:99"
LEASES = pytest.mark.parametrize(
    ("address", "word", "lease"),
    [("10.0.0.1", Source.ARP, Source.DHCP), ("fd00::1", Source.ND, Source.DHCPV6)],
    ids=["ipv4", "ipv6"],
)


def given(server: dict[str, Any], address: str, word: Source, lease: Source, by: str) -> World:
    """Claimed by the first vNIC, then leased to the second by this MAC address; the third may be a server."""
    here = seen([card(0), card(1), server], (0, address, word), (1, address, lease), mode="TOFU")
    leased = replace(here.claims[VNICS[1]][address], server=by)
    return replace(here, claims={**here.claims, VNICS[1]: {address: leased}})


@LEASES
def test_x33_a_lease_is_worth_more_than_a_word(address: str, word: Source, lease: Source) -> None:
    """Claimed in advance, an address still goes to whom a marked port of the segment gives it."""
    here = given(card(2, dhcp_server=True), address, word, lease, SERVER)
    assert (states(here, 0), states(here, 1)) == ({address: R}, {address: T})


@LEASES
@pytest.mark.parametrize("by", [SERVER, STRANGER, ""])
@pytest.mark.parametrize("marks", [{}, {"dhcp_server": True, "segment_path": None}, {"router": True}])
def test_x33_a_lease_of_anybody_is_a_claim_like_others(
    address: str, word: Source, lease: Source, by: str, marks: dict[str, Any]
) -> None:
    """Of a port that is not marked, that is on another segment, or that is none of ours: the first claim
    stands."""
    here = given(card(2, **marks), address, word, lease, by)
    assert (states(here, 0), states(here, 1)) == ({address: T}, {address: R})
    marked = given(card(2, dhcp_server=True), address, word, lease, STRANGER)
    assert states(marked, 1) == {address: R}


def said(world: World, *claims: Claim) -> dict[str, Claimed]:
    """What is known of the first vNIC once its host has said these, one after another."""
    for claim in claims:
        plugged = frozenset({VNICS[0]})
        world = replace(world, claims=told(world, HOST, plugged, Addresses({VNICS[0]: (claim,)}), 5))
    return dict(world.claims[VNICS[0]])


def until(claim: Claim, expires: int) -> Claim:
    return Claim(claim.address, claim.source, expires, claim.server)


@LEASES
def test_x33_a_lease_of_anybody_replaces_nothing(address: str, word: Source, lease: Source) -> None:
    """Neither what a workload said, which never ends, nor a lease of a server we know, nor the time at which
    another lease ends, unless it is later or the workload says the same; so no neighbour ends it."""
    here = seen([card(0), card(1), card(2, dhcp_server=True)])
    soon = Claim(address, lease, 10, STRANGER)
    assert said(here, Claim(address, word), soon)[address] == Claimed(word, 0, HOST, 5)
    right = Claim(address, lease, 100, SERVER)
    for forged in (soon, until(soon, 200)):
        assert said(here, right, forged)[address] == Claimed(lease, 100, HOST, 5, server=SERVER)
    assert said(here, right, Claim(address, word))[address] == Claimed(lease, 100, HOST, 5, server=SERVER)
    anybody = Claim(address, lease, 100, "02:00:00:00:99:98")
    known = Claimed(lease, 100, HOST, 5, server="02:00:00:00:99:98")
    assert said(here, anybody, soon)[address] == known
    assert said(here, anybody, until(soon, 200))[address] == replace(known, expires=200)
    own = Claim(address, word)
    for forever in (
        [anybody, until(soon, 0)],
        [until(anybody, 0), soon],
        [anybody, own],
        [anybody, soon, own],
    ):
        assert said(here, *forever)[address] == replace(known, expires=0)


@LEASES
def test_x33_a_lease_of_a_server_we_know_replaces_all(address: str, word: Source, lease: Source) -> None:
    """What was said, what somebody else gave; and it may end sooner than before. When it was first seen and
    that it was approved stays."""
    here = seen([card(0), card(1), card(2, dhcp_server=True)])
    right = Claim(address, lease, 50, SERVER)
    known = Claimed(lease, 50, HOST, 5, server=SERVER)
    for before in (
        Claim(address, word),
        Claim(address, lease, 99, STRANGER),
        Claim(address, lease, 99, SERVER),
    ):
        assert said(here, before, right)[address] == known


@pytest.mark.parametrize("server", ["02:00:00:00:00:0", "02:00:00:00:00:0G", "02-00-00-00-00-02", "x"])
def test_x33_a_server_without_a_mac_address_is_no_claim(server: str) -> None:
    """The message of a host that says so is refused whole."""
    claim = {"address": "10.0.0.1", "source": "dhcp", "server": server}
    with pytest.raises(msgspec.ValidationError, match="no MAC address"):
        msgspec.convert({"vnics": {VNICS[0]: [claim]}}, Addresses)


@LEASES
@pytest.mark.parametrize("mode", ["DISABLED", "TOFU"])
def test_x33_a_host_cannot_lease_what_a_vnic_of_another_host_has(
    address: str, word: Source, lease: Source, mode: str
) -> None:
    """An attacker's host says that the server gave it the address: refused, however the other came by it. One
    that nobody had is its."""
    for known in (word, Source.TOOLS, lease):
        here = leased_by_hosts((1, address, known), (0, address, lease), mode=mode)
        assert (states(here, 0), states(here, 1)) == ({address: R}, {address: T})
    first = leased_by_hosts((0, address, lease), (1, address, word), mode=mode)
    assert (states(first, 0), states(first, 1)) == ({address: T}, {address: R})


def test_an_address_of_a_vm_that_is_plugged_nowhere_can_be_leased() -> None:
    """Whoever had it before is gone; what was seen of it is not, until it is forgotten."""
    here = leased_by_hosts((1, "10.0.0.1", Source.ARP), (0, "10.0.0.1", Source.DHCP))
    gone = replace(here, plugged={VNICS[0]: frozenset({ROGUE})})
    assert (states(gone, 0), states(gone, 1)) == ({"10.0.0.1": T}, {"10.0.0.1": R})
    before = realise(here)
    assert realise(gone, before).judgements == realise(gone).judgements != before.judgements


def test_x33_what_a_host_told_earlier_of_one_address_is_worth_nothing_for_another() -> None:
    """A lease of an address that no other host claims is the vNIC's first, whatever the others claim."""
    claims = [(1, "10.0.0.3", Source.ARP), (0, "10.0.0.1", Source.ARP), (0, "10.0.0.2", Source.DHCP)]
    here = leased_by_hosts(*claims, mode="TOFU")
    assert (states(here, 0), states(here, 1)) == ({"10.0.0.1": W, "10.0.0.2": T}, {"10.0.0.3": T})


ELSEWHERE: dict[str, Any] = {"segment_path": None}
BOTH_FAMILIES = pytest.mark.parametrize("address", ["10.0.0.1", "fd00::1"])


def approved(world: World, number: int, address: str) -> World:
    claims = world.claims[VNICS[number]]
    known = {**claims, address: replace(claims[address], approved=True)}
    return replace(world, claims={**world.claims, VNICS[number]: known})


@BOTH_FAMILIES
@pytest.mark.parametrize("mode", ["DISABLED", "TOFU"])
def test_x33_no_address_is_taken_from_another_segment(address: str, mode: str) -> None:
    """An address that two segments have belongs to nobody seen from a third, so a claim of one that is typed,
    approved or was seen earlier in another segment counts for nothing, and says why."""
    word = (0, address, Source.ARP)
    typed = seen([card(0), {**card(1, address), **ELSEWHERE}], word, mode=mode)
    (judged,) = judge(typed)[VNICS[0]]
    assert judged.state is W
    assert VNICS[1] in judged.reason
    here = [card(0), {**card(1), **ELSEWHERE}]
    earlier = seen(here, (1, address, Source.ARP), word, mode=mode)
    assert (states(earlier, 0), states(earlier, 1)) == ({address: W}, {address: T})
    later = approved(seen(here, word, (1, address, Source.ARP), mode=mode), 1, address)
    assert (states(later, 0), states(later, 1)) == ({address: W}, {address: T})


@BOTH_FAMILIES
def test_segments_have_the_same_addresses_if_somebody_wants_that(address: str) -> None:
    """Typed in both, typed in one and approved in the other, or approved in both."""
    both = seen([card(0, address), {**card(1, address), **ELSEWHERE}], (0, address, Source.ARP))
    assert states(both) == {address: T}
    one = seen([card(0), {**card(1, address), **ELSEWHERE}], (0, address, Source.ARP))
    assert states(approved(one, 0, address)) == {address: T}
    claims = [(0, address, Source.ARP), (1, address, Source.ARP)]
    none = seen([card(0), {**card(1), **ELSEWHERE}], *claims)
    assert [states(approved(approved(none, 0, address), 1, address), number) for number in (0, 1)] == [
        {address: T},
        {address: T},
    ]


@pytest.mark.parametrize("address", ["169.254.0.1", "fe80::1"])
def test_link_local_addresses_are_of_their_segment(address: str) -> None:
    """The same one in two segments is two addresses: no packet with it passes from one to the other."""
    claims = [(0, address, Source.ARP), (1, address, Source.ARP)]
    here = seen([card(0), {**card(1), **ELSEWHERE}], *claims)
    assert (states(here, 0), states(here, 1)) == ({address: T}, {address: T})


def test_a_host_speaks_for_what_is_plugged_there() -> None:
    """Of other vNICs it says nothing; what it does not repeat stays; more than 128 addresses that a workload
    says and 16 that it is given is not believed."""
    flood = tuple(
        Claim(f"10.{int(source)}.{n // 250}.{n % 250 + 1}", (Source.ARP, Source.DHCP)[source])
        for n in range(200)
        for source in (True, False)
    )
    said = Addresses({VNICS[0]: flood, VNICS[1]: flood})
    after = told(World(), HOST, frozenset({VNICS[0]}), said, 5)
    assert set(after) == {VNICS[0]}
    assert len(after[VNICS[0]]) == 128 + 16
    known = replace(World(), claims=after)
    assert told(known, HOST, frozenset({VNICS[0]}), Addresses({VNICS[0]: ()}), 6) == after


def test_leases_end() -> None:
    """Unless somebody approved the address; a vNIC that is nowhere takes its claims with it."""
    claims = {
        VNICS[0]: {
            "10.0.0.1": Claimed(Source.DHCP, 100, HOST, 0),
            "10.0.0.2": Claimed(Source.DHCP, 100, HOST, 0, approved=True),
            "10.0.0.3": Claimed(Source.ARP, 0, HOST, 0),
        },
        VNICS[1]: {"10.0.0.4": Claimed(Source.ARP, 0, HOST, 0)},
    }
    assert alive(claims, {VNICS[0], VNICS[1]}, 99) == claims
    assert set(alive(claims, {VNICS[0]}, 100)[VNICS[0]]) == {"10.0.0.2", "10.0.0.3"}
    assert set(alive(claims, {VNICS[0]}, 100)) == {VNICS[0]}


# Through the register and REST


async def plugged(manager: Manager, *cards: dict[str, Any]) -> None:
    await manager.call("PUT", "/policy/api/v1/infra/segments/blue", {})
    for id, each in zip(VM, cards, strict=False):
        await manager.call("PUT", f"{VSFW}/vms/{id}", {"vnics": [each]})
    manager.register.add_host(HOST, "host")
    bindings = tuple(
        Binding(each["id"], id, each["mac"], "veth") for id, each in zip(VM, cards, strict=False)
    )
    manager.vnics.bound(HOST, Bindings(bindings))


def sent(manager: Manager, number: int = 0) -> dict[str, Any]:
    """The vNIC as the host is sent it."""
    raw = manager.register.hosts[HOST].level.wanted.objects["vnics"][VNICS[number]]
    found: dict[str, Any] = msgspec.json.decode(raw)
    return found


async def test_x33_a_change_waits_until_it_is_approved(manager: Manager) -> None:
    """Seen, shown as waiting, approved, sent to the host; revoked and forgotten it is gone again, and the
    host is to forget it, too."""
    await plugged(manager, card(0, "10.0.0.1", spoofguard="MANUAL", router=True))
    assert sent(manager)["spoofguard"] == "manual"
    assert sent(manager)["router"] is True
    manager.vnics.claimed(HOST, Addresses({VNICS[0]: (Claim("10.0.0.5", Source.ARP),)}))
    (shown,) = (await manager.call("GET", f"{VSFW}/addresses?state=WAITING"))["results"]
    assert (shown["vnic"], shown["address"], shown["source"]) == (VNICS[0], "10.0.0.5", "ARP")
    assert sent(manager)["addresses"] == ["10.0.0.1"]
    named = {"vnic": VNICS[0], "address": "10.0.0.5"}
    await manager.call("POST", f"{VSFW}/addresses?action=approve", named)
    assert sent(manager)["addresses"] == ["10.0.0.1", "10.0.0.5"]
    await manager.call("POST", f"{VSFW}/addresses?action=revoke", named)
    assert sent(manager)["addresses"] == ["10.0.0.1"]
    await manager.call("POST", f"{VSFW}/addresses?action=forget", named)
    ((host, request),) = manager.register.requests
    assert (host, request.method, request.vnic, request.address) == (HOST, "forget", VNICS[0], "10.0.0.5")
    assert (await manager.call("GET", f"{VSFW}/addresses"))["results"] == []


async def test_x33_an_address_of_another_host_is_an_alarm(manager: Manager) -> None:
    """Who claims it, what is said of it and whose it is; the owner's host goes on being sent it, and the
    alarm goes when an operator forgets the owner's claim, with the address then being the other's."""
    await plugged(manager, card(0), card(1), card(2, dhcp_server=True))
    manager.register.add_host(ROGUE, "rogue")
    cards = [Binding(VNICS[number], VM[number], card(number)["mac"], "veth") for number in (0, 1)]
    manager.vnics.bound(HOST, Bindings((cards[1],)))
    manager.vnics.bound(ROGUE, Bindings((cards[0],)))
    manager.vnics.claimed(HOST, Addresses({VNICS[1]: (Claim("10.0.0.1", Source.ARP),)}))
    stolen = Claim("10.0.0.1", Source.DHCP, 0, SERVER)
    manager.vnics.claimed(ROGUE, Addresses({VNICS[0]: (stolen,)}))
    assert sent(manager, 1)["addresses"] == ["10.0.0.1"]
    (alarm,) = [each for each in await alarms(manager) if each["event_type"] == "duplicate_ip_address"]
    assert alarm["node_id"] == ROGUE
    for text in (VNICS[0], VNICS[1], "10.0.0.1"):
        assert text in alarm["description"]
    named = {"vnic": VNICS[1], "address": "10.0.0.1"}
    await manager.call("POST", f"{VSFW}/addresses?action=forget", named)
    assert "addresses" not in sent(manager, 1)
    assert [each["event_type"] for each in await alarms(manager)] == []


async def alarms(manager: Manager) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = (await manager.call("GET", "/api/v1/alarms"))["results"]
    return found


async def test_x33_anothers_address_cannot_be_approved(manager: Manager) -> None:
    """409 and its owner's name; an address nobody was seen with is 404."""
    await plugged(manager, card(0), card(1, "10.0.0.1"))
    manager.vnics.claimed(HOST, Addresses({VNICS[0]: (Claim("10.0.0.1", Source.ARP),)}))
    refused = await manager.answer(
        "POST", f"{VSFW}/addresses?action=approve", {"vnic": VNICS[0], "address": "10.0.0.1"}
    )
    assert refused.status_code == 409
    assert VNICS[1] in refused.json()["error_message"]
    missing = {"vnic": VNICS[0], "address": "10.0.0.2"}
    assert (await manager.answer("POST", f"{VSFW}/addresses?action=approve", missing)).status_code == 404


async def test_claims_and_approvals_outlive_the_manager(manager: Manager) -> None:
    """What was seen, from which server, and that it was approved, is read back."""
    await plugged(manager, card(0, spoofguard="MANUAL"))
    manager.vnics.claimed(HOST, Addresses({VNICS[0]: (Claim("10.0.0.5", Source.DHCP, 0, SERVER),)}))
    (shown,) = (await manager.call("GET", f"{VSFW}/addresses"))["results"]
    assert (shown["source"], shown["server"]) == ("DHCP", SERVER)
    manager.vnics.approve(VNICS[0], "10.0.0.5", True)
    again = Manager(manager.directory, "")
    assert again.register.world.claims == manager.register.world.claims
    assert again.register.judgements == manager.register.judgements
    await again.close()


@pytest.mark.parametrize(
    ("address", "kept"),
    [("fe80::1", W), ("febf::1", W), ("fe7f::1", T), ("fec0::1", T), ("fe8::1", T), ("fe8:1::1", T)],
)
def test_what_is_link_local_is_told_by_its_first_ten_bits(address: str, kept: State) -> None:
    """RFC 4291: the second of a vNIC's link-local addresses waits, the first of its others does not."""
    here = seen([card(0)], (0, "fe80::2", Source.ND), (0, address, Source.ND), mode="TOFU")
    assert {each.address: each.state for each in judge(here)[VNICS[0]]}[address] is kept


async def test_an_address_that_an_earlier_release_took_is_forgotten(manager: Manager) -> None:
    """IPv4 in IPv6 clothes, in the database: no vNIC can have it, and approving another of the vNIC's goes
    on."""
    await plugged(manager, card(0, spoofguard="MANUAL"))
    manager.vnics.claimed(HOST, Addresses({VNICS[0]: (Claim("10.0.0.5", Source.ARP),)}))
    known = manager.register.world.claims[VNICS[0]]
    clothed = {**known, "::ffff:102:304": replace(known["10.0.0.5"], approved=True)}
    with manager.parts.store.begin() as transaction:
        transaction.replace_claims([VNICS[0]], claim_rows(VNICS[0], clothed))
    again = Manager(manager.directory, manager.admin[1])
    decision = {"vnic": VNICS[0], "address": "10.0.0.5"}
    await again.call("POST", f"{VSFW}/addresses?action=approve", decision)
    assert set(again.register.world.claims[VNICS[0]]) == {"10.0.0.5"}
    await again.close()


async def test_x32_networks_and_nobody_cannot_be_bound(manager: Manager) -> None:
    """CVE-2015-3221: a prefix among a vNIC's addresses is refused, 0.0.0.0/0 too."""
    for wrong in ("0.0.0.0/0", "10.0.0.0/24", "::/0", "0.0.0.0", "10.0.0.1-10.0.0.9"):
        answer = await manager.answer("PUT", f"{VSFW}/vms/{VM[0]}", {"vnics": [card(0, wrong)]})
        assert answer.status_code == 400, wrong
        assert "addresses" in answer.json()["error_message"]
