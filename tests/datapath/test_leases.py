"""The daemon is shown what DHCP servers answer to a vNIC: what reaches it, and what it has asked for.

Row X33 of the attack catalogue: a lease makes its vNIC a member of groups, so nobody may forge one."""

import struct
from collections.abc import Callable
from itertools import product

import pytest
from scapy.layers.inet import IP, UDP
from scapy.layers.inet6 import IPv6, IPv6ExtHdrFragment
from scapy.layers.l2 import ARP, Ether
from scapy.packet import Packet, Raw

from tests.harness.datapath import PEER_MAC, Host, Port, dropped
from tests.harness.packets import IPV4, IPV6, Net, ip
from vsfwd.datapath import Snoop, bpf

pytestmark = pytest.mark.slow

SERVER, CLIENT = {"ipv4": 67, "ipv6": 547}, {"ipv4": 68, "ipv6": 546}
VNICS = {"here": "10.0.0.1 fd00::1", "twin": "10.0.0.2 fd00::2"}
MAC = "02:00:00:00:00:00"
NUMBER = 0x123456
ANSWER_NS = 64 * 10**9


def message(net: Net, kind: int, number: int, size: int = 300) -> Raw:
    """As much of a DHCP message as the programs read; the rest is zero."""
    client = bytes.fromhex(MAC.replace(":", ""))
    if net is IPV4:
        return Raw(struct.pack(">B3xI20x6s", kind, number, client).ljust(size, b"\0"))
    return Raw(struct.pack(">I", kind << 24 | number).ljust(size, b"\0"))


def request(net: Net, number: int = NUMBER) -> Packet:
    """To the server that gave the lease, as a client does that renews it."""
    ports = UDP(sport=CLIENT[net.family], dport=SERVER[net.family])
    return ip(net.here, net.peer) / ports / message(net, 1, number)


def request_to_all(net: Net, number: int = NUMBER) -> Packet:
    """As a client does that has no address yet."""
    ends = ("0.0.0.0", "255.255.255.255") if net is IPV4 else ("fe80::ff:fe00:0", "ff02::1:2")
    group = "ff:ff:ff:ff:ff:ff" if net is IPV4 else "33:33:00:01:00:02"
    ports = UDP(sport=CLIENT[net.family], dport=SERVER[net.family])
    return Ether(src=MAC, dst=group) / ip(*ends) / ports / message(net, 1, number)


def answer(
    net: Net, number: int = NUMBER, sport: int | None = None, dport: int | None = None, size: int = 300
) -> Packet:
    ports = UDP(sport=sport or SERVER[net.family], dport=dport or CLIENT[net.family])
    return ip(net.peer, net.here) / ports / message(net, 2 if net is IPV4 else 7, number, size)


ASKS = (request, request_to_all)


@pytest.fixture
def here(host: Host) -> Port:
    port = host.port("here")
    host.install(["allow"], vnics=VNICS)
    host.datapath.poll_snoops()
    return port


def shown(host: Host) -> list[Snoop]:
    return host.datapath.poll_snoops()


@pytest.mark.parametrize(
    ("rules", "ask"),
    [
        *product((["allow"], ["allow stateless"], ["allow service udp monitored", "allow"]), ASKS),
        (None, request_to_all),
    ],
    ids=[f"{rules}-{ask.__name__}" for rules, ask in product(("flow", "stateless", "monitored"), ASKS)]
    + ["closed"],
)
def test_x33_an_answer_that_was_asked_for_is_shown(
    host: Host, net: Net, rules: list[str] | None, ask: Callable[[Net], Packet]
) -> None:
    """Whichever way it passes; each of them, since a lease that is renewed has a new end; cut off where it is
    long. The request itself is not shown."""
    here = host.port("here")
    if rules:
        host.install(rules, vnics=VNICS)
    assert here.send(ask(net)).verdict == "pass"
    for _ in range(2):
        assert here.receive(answer(net, size=1200)).verdict == "pass"
    assert [(each.slot, each.direction, len(each.frame)) for each in shown(host)] == [
        (here.slot, "in", 1023)
    ] * 2


def test_x33_an_answer_to_everybody_is_shown(host: Host, here: Port) -> None:
    """As a server does where the client has no address yet and says so (RFC 2131 4.1)."""
    here.send(request_to_all(IPV4))
    to_all = IP(src="10.0.9.9", dst="255.255.255.255") / UDP(sport=67, dport=68) / message(IPV4, 2, NUMBER)
    here.receive(Ether(src=PEER_MAC, dst="ff:ff:ff:ff:ff:ff") / to_all)
    assert len(shown(host)) == 1


def test_x33_an_answer_that_is_dropped_is_not_shown(host: Host, here: Port, net: Net) -> None:
    """CVE-2025-0650: a neighbour forges it, and the rules keep it from the vNIC; the next one they let by."""
    for action in ("drop", "reject"):
        host.install([f"{action} in service udp/{CLIENT[net.family]}", "allow"], vnics=VNICS)
        here.send(request_to_all(net))
        assert here.receive(answer(net)).verdict != "pass"
        assert shown(host) == []
    host.install(["allow"], vnics=VNICS)
    here.receive(answer(net))
    assert len(shown(host)) == 1


@pytest.mark.parametrize("number", [NUMBER + 1, NUMBER | 1 << 23, 0])
def test_x33_an_answer_that_was_not_asked_for_is_not_shown(
    host: Host, here: Port, net: Net, number: int
) -> None:
    """Before any request; with another number than the last; and the right one is shown afterwards."""
    assert here.receive(answer(net, number)).verdict == "pass"
    here.send(request(net))
    assert here.receive(answer(net, number)).verdict == "pass"
    assert shown(host) == []
    here.receive(answer(net))
    assert len(shown(host)) == 1


def test_x33_a_request_of_another_vnic_or_family_does_not_count(host: Host, here: Port, net: Net) -> None:
    """Nor one that was dropped, nor one that was only received."""
    twin, other = host.port("twin"), IPV6 if net is IPV4 else IPV4
    twin.send(ip(net.twin, net.peer) / request(net)[UDP])
    here.send(request(other))
    here.receive(ip(net.peer, net.here) / request(net)[UDP])
    here.receive(answer(net))
    host.install([f"drop out service udp/{SERVER[net.family]}", "allow"], vnics=VNICS)
    assert here.send(request_to_all(net)) == dropped("rule_drop", 1)
    here.receive(answer(net))
    assert shown(host) == []


def test_x33_an_answer_comes_soon_or_not_at_all(host: Host, here: Port, net: Net) -> None:
    """64 seconds, the longest that a client waits before it asks again (RFC 2131 4.1)."""
    programs = host.datapath._programs
    fd, layout = programs.fd("dhcp_requests"), programs.layouts("dhcp_requests")[1]
    place = struct.pack("<I", here.slot * 2 + (net is IPV6))

    def ages(by_ns: int) -> None:
        noted = layout.unpack(bpf.lookup(fd, place, layout.size) or b"")
        bpf.update(fd, place, layout.pack(**noted | {"until": noted["until"] - by_ns}))

    here.send(request(net))
    ages(ANSWER_NS - 10**10)
    here.receive(answer(net))
    assert len(shown(host)) == 1
    ages(10**10)
    here.receive(answer(net))
    assert shown(host) == []
    here.send(request(net))
    here.receive(answer(net))
    assert len(shown(host)) == 1


def test_x33_only_a_servers_port_answers_a_clients(host: Host, here: Port, net: Net) -> None:
    """The ports beside them, and those of the other family, say nothing."""
    other = "ipv6" if net is IPV4 else "ipv4"
    server, client = SERVER[net.family], CLIENT[net.family]
    here.send(request(net))
    for sport, dport in [
        (server, client + 1),
        (server - 1, client),
        (client, client),
        (SERVER[other], CLIENT[other]),
    ]:
        here.receive(answer(net, sport=sport, dport=dport))
    assert shown(host) == []


def test_x33_forged_answers_do_not_hide_the_right_one(host: Host, here: Port, net: Net) -> None:
    """A flood with wrong numbers spends nothing of what may be shown."""
    here.send(request(net))
    for number in range(100):
        here.run_raw(host.datapath.vnic_in, bytes(here.frame_in(answer(net, number))))
    here.receive(answer(net))
    assert len(shown(host)) == 1


def test_x33_others_do_not_silence_what_a_workload_says_of_itself(host: Host, here: Port, net: Net) -> None:
    """Nor does it silence them: what comes in and what goes out have a rate each."""
    claim = Ether(src=here.mac, dst=PEER_MAC) / ARP(hwsrc=here.mac, psrc="10.0.0.1")
    here.send(request(net))
    for _ in range(100):
        here.run_raw(host.datapath.vnic_in, bytes(here.frame_in(answer(net))))
    here.send(claim)
    assert [each.direction for each in shown(host)][-1] == "out"
    twin = host.port("twin")
    host.install(["allow"], vnics=VNICS)
    twin.send(ip(net.twin, net.peer) / request(net)[UDP])
    for n in range(1, 101):
        claims = Ether(src=twin.mac, dst=PEER_MAC) / ARP(hwsrc=twin.mac, psrc=f"10.7.0.{n}")
        twin.run_raw(host.datapath.vnic_out, bytes(claims))
    twin.receive(ip(net.peer, net.twin) / answer(net)[UDP])
    assert [each.direction for each in shown(host)][-1] == "in"


@pytest.mark.parametrize("rule", ["allow", "allow stateless"])
def test_x33_an_answer_in_fragments_is_not_shown(host: Host, here: Port, net: Net, rule: str) -> None:
    """What it says may come later; and it hides no answer behind it."""
    host.install([rule], vnics=VNICS)
    here.send(request(net))
    whole = answer(net)
    head = bytes(whole[UDP])[:200]
    if net is IPV4:
        first = IP(src=net.peer, dst=net.here, flags="MF", id=7, proto=17) / Raw(head)
    else:
        first = IPv6(src=net.peer, dst=net.here) / IPv6ExtHdrFragment(id=7, m=1, nh=17) / Raw(head)
    assert here.receive(first).verdict == "pass"
    assert shown(host) == []
    here.receive(whole)
    assert len(shown(host)) == 1


def test_x33_who_gets_a_slot_has_asked_nothing(host: Host, here: Port, net: Net) -> None:
    """The next vNIC in the slot does not hear what the last one asked for."""
    here.send(request(net))
    slot = here.slot
    host.unplug()
    host.datapath.poll_snoops()
    again = host.port("here")
    host.install(["allow"], vnics=VNICS)
    assert again.slot == slot
    again.receive(answer(net))
    assert shown(host) == []
