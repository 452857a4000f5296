"""Traceflows held against packets: what the manager computes for one is what becomes of it in the lab, at
every VM of the segment."""

import selectors
import socket
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from typing import Any

import pytest
from scapy.layers.dhcp import BOOTP, DHCP
from scapy.layers.dhcp6 import DHCP6_Solicit
from scapy.layers.dns import DNS, DNSQR
from scapy.layers.inet import IP, UDP
from scapy.layers.inet6 import ICMPv6ND_NA, ICMPv6ND_NS, ICMPv6NDOptDstLLAddr, ICMPv6NDOptSrcLLAddr, IPv6
from scapy.layers.l2 import ARP, Ether
from scapy.packet import Packet, Raw

from tests.harness.lab import ANY, World, allow, drop, reject, section
from tests.integration.test_e2e_policy import send_frames
from tests.integration.test_e2e_spoofguard import typed
from vagrant.lab.layout import Vm
from vagrant.lab.probe import Seen, inside
from vagrant.lab.rest import checked, put, request

pytestmark = pytest.mark.slow

FRAMES = "domains/default/security-policies/frames"
TRACEFLOWS = "/api/v1/traceflows"
BROADCAST = "ff:ff:ff:ff:ff:ff"
EXPERIMENTAL = 0x88B5
"""An EtherType for local experiments (IEEE 802)."""
_ETH_P_ALL = 0x0003
SILENCE_S, DEADLINE_S = 0.2, 30.0
"""A frame takes less than a millisecond, to the other host too."""
Rules = list[dict[str, Any]]


def traced(world: World, packet: dict[str, Any]) -> list[Any]:
    """The observations of a packet from a."""
    made = request(world.lab.rest, "POST", TRACEFLOWS, {"lport_id": world.vm("a").vnic, "packet": packet})
    found = checked(world.lab.rest.get(f"{TRACEFLOWS}/{made['id']}/observations"))
    return list(found["results"])


def promised(world: World, packet: dict[str, Any]) -> set[str]:
    """VMs that it is delivered to."""
    names = {vm.vnic: vm.name for vm in world.lab.layout.vms}
    seen = traced(world, packet)
    return {names[each["lport_id"]] for each in seen if each["resource_type"].endswith("Delivered")}


def heard(world: World, frame: bytes, expected: set[str]) -> set[str]:
    """VMs that a frame gets to which a sends: those that should, if they do in time, and whoever else does
    before it has been silent for so long."""
    found: set[str] = set()
    with ExitStack() as stack:
        selector = stack.enter_context(selectors.DefaultSelector())
        for vm in world.lab.layout.vms:
            if vm.name != "a":
                selector.register(stack.enter_context(listening(vm)), selectors.EVENT_READ, vm.name)
        send_frames(world.vm("a").namespace, [frame])
        until = time.monotonic() + DEADLINE_S
        while ready := selector.select(
            SILENCE_S if expected <= found else max(0.0, until - time.monotonic())
        ):
            for key, _ in ready:
                wire = key.fileobj
                assert isinstance(wire, socket.socket)
                if wire.recv(2048) == frame:
                    found.add(key.data)
    return found


@contextmanager
def listening(vm: Vm) -> Iterator[socket.socket]:
    with inside(vm.namespace):
        wire = socket.socket(socket.AF_PACKET, socket.SOCK_RAW, socket.htons(_ETH_P_ALL))
    with wire:
        wire.bind(("eth0", _ETH_P_ALL))
        yield wire


@contextmanager
def frames(world: World, *rules: dict[str, Any]) -> Iterator[None]:
    """Ethernet rules for a while."""
    put(world.lab.rest, FRAMES, section(rules) | {"category": "Ethernet"})
    world.lab.wait_applied()
    try:
        yield
    finally:
        request(world.lab.rest, "DELETE", f"/policy/api/v1/infra/{FRAMES}")


@pytest.mark.parametrize("family", [4, 6], ids=["IPv4", "IPv6"])
def test_allow_drop_and_reject_are_what_a_session_meets(world: World, family: int) -> None:
    """TCP, UDP and echo requests, by three rules and the default one; on one host and to another. No rule is
    about neighbour discovery, without which c may not find a over IPv6."""
    rejected = reject("a", ANY, "tcp/81", "udp/81")
    world.enforce(allow("a", "c", "tcp/80", "icmp"), rejected, drop("a", "c", "udp/80"))
    for target in ("b", "c"):
        for service in ("tcp/80", "tcp/81", "udp/80", "udp/81", "icmp"):
            assert said(world, target, service, family) == world.seen("a", target, service, family), service


def said(world: World, target: str, service: str, family: int) -> Seen:
    """What a traceflow says becomes of it, in the words of a probe."""
    protocol, _, port = service.partition("/")
    header, numbers = {4: ("ip_header", (6, 17, 1)), 6: ("ipv6_header", (6, 17, 58))}[family]
    number = numbers[("tcp", "udp", "icmp").index(protocol)]
    field = {"ip_header": "protocol", "ipv6_header": "next_header"}[header]
    packet: dict[str, Any] = {header: {"dst_ip": world.address(target, family), field: number}}
    if port:
        packet["transport_header"] = {f"{protocol}_header": {"dst_port": int(port), "src_port": 40000}}
    last = traced(world, packet)[-1]
    if last["resource_type"].endswith("Delivered"):
        return Seen.ALLOWED
    return {"DROP": Seen.DROPPED, "REJECT": Seen.REJECTED}[last["why"]["action"]]


def arp(world: World, op: str, sender: str) -> tuple[dict[str, Any], Packet]:
    a, c = world.vm("a"), world.vm("c")
    asks = op == "ARP_REQUEST"
    body = ARP(op=1 if asks else 2, hwsrc=a.mac, psrc=sender, pdst=c.v4, hwdst=BROADCAST if asks else c.mac)
    header = {"op_code": op, "src_ip": sender, "dst_ip": c.v4}
    return {"arp_header": header}, Ether(src=a.mac, dst=BROADCAST if asks else c.mac) / body


def arp_request(world: World) -> tuple[dict[str, Any], Packet]:
    return arp(world, "ARP_REQUEST", world.vm("a").v4)


def arp_reply(world: World) -> tuple[dict[str, Any], Packet]:
    return arp(world, "ARP_REPLY", world.vm("a").v4)


def arp_lie(world: World) -> tuple[dict[str, Any], Packet]:
    return arp(world, "ARP_REQUEST", world.vm("d").v4)


def link_local(vm: Vm) -> str:
    octets = bytes.fromhex(vm.mac.replace(":", ""))
    host = (bytes([octets[0] ^ 2]) + octets[1:3] + b"\xff\xfe" + octets[3:]).hex(":", 2)
    return f"fe80::{host}"


def solicitation(world: World) -> tuple[dict[str, Any], Packet]:
    a, c = world.vm("a"), world.vm("c")
    last = c.v6.rpartition(":")[2].zfill(2)
    ip = IPv6(src=link_local(a), dst=f"ff02::1:ff00:{last}", hlim=255)
    body = ICMPv6ND_NS(tgt=c.v6) / ICMPv6NDOptSrcLLAddr(lladdr=a.mac)
    frame = Ether(src=a.mac, dst=f"33:33:ff:00:00:{last}") / ip / body
    return {"transport_header": {"ndp_header": {"dst_ip": c.v6}}}, frame


def advertisement(world: World, of: str) -> tuple[dict[str, Any], Packet]:
    a, c, target = world.vm("a"), world.vm("c"), world.vm(of).v6
    body = ICMPv6ND_NA(tgt=target, R=0) / ICMPv6NDOptDstLLAddr(lladdr=a.mac)
    frame = Ether(src=a.mac, dst=c.mac) / IPv6(src=a.v6, dst=c.v6, hlim=255) / body
    header = {"ndp_header": {"dst_ip": target, "msg_type": "NEIGHBOR_ADVERTISEMENT"}}
    return {"ipv6_header": {"src_ip": a.v6, "dst_ip": c.v6}, "transport_header": header}, frame


def own_advertisement(world: World) -> tuple[dict[str, Any], Packet]:
    return advertisement(world, "a")


def advertisement_lie(world: World) -> tuple[dict[str, Any], Packet]:
    return advertisement(world, "d")


def dhcp(world: World, op: str) -> tuple[dict[str, Any], Packet]:
    a, asks = world.vm("a"), op == "BOOTREQUEST"
    ports = UDP(sport=68, dport=67) if asks else UDP(sport=67, dport=68)
    ip = IP(src="0.0.0.0" if asks else a.v4, dst="255.255.255.255")
    message = BOOTP(op=1 if asks else 2, chaddr=bytes.fromhex(a.mac.replace(":", "")), xid=7)
    options = DHCP(options=[("message-type", "discover" if asks else "offer"), "end"])
    frame = Ether(src=a.mac, dst=BROADCAST) / ip / ports / message / options
    return {"transport_header": {"dhcp_header": {"op_code": op}}}, frame


def dhcp_request(world: World) -> tuple[dict[str, Any], Packet]:
    return dhcp(world, "BOOTREQUEST")


def dhcp_reply(world: World) -> tuple[dict[str, Any], Packet]:
    return dhcp(world, "BOOTREPLY")


def dhcpv6_solicit(world: World) -> tuple[dict[str, Any], Packet]:
    a = world.vm("a")
    ip = IPv6(src=link_local(a), dst="ff02::1:2") / UDP(sport=546, dport=547) / DHCP6_Solicit(trid=7)
    return {"transport_header": {"dhcpv6_header": {}}}, Ether(src=a.mac, dst="33:33:00:01:00:02") / ip


def dns_query(world: World) -> tuple[dict[str, Any], Packet]:
    a, c = world.vm("a"), world.vm("c")
    body = IP(src=a.v4, dst=c.v4) / UDP(sport=49152, dport=53) / DNS(qd=DNSQR(qname="example.org"))
    packet = {"ip_header": {"dst_ip": c.v4}, "transport_header": {"dns_header": {"address": "example.org"}}}
    return packet, Ether(src=a.mac, dst=c.mac) / body


def mdns(world: World) -> tuple[dict[str, Any], Packet]:
    a = world.vm("a")
    body = IP(src=a.v4, dst="224.0.0.251", ttl=1) / UDP(sport=5353, dport=5353) / DNS(qd=DNSQR())
    ports = {"udp_header": {"src_port": 5353, "dst_port": 5353}}
    packet = {"ip_header": {"dst_ip": "224.0.0.251"}, "transport_header": ports}
    return packet, Ether(src=a.mac, dst="01:00:5e:00:00:fb") / body


def other_frame(world: World) -> tuple[dict[str, Any], Packet]:
    a, group = world.vm("a"), "03:00:00:00:00:01"
    frame = Ether(src=a.mac, dst=group, type=EXPERIMENTAL) / Raw(b"a frame of another kind".ljust(50))
    return {"eth_header": {"eth_type": EXPERIMENTAL, "dst_mac": group}}, frame


Message = Callable[[World], tuple[dict[str, Any], Packet]]
ALL, NOBODY = {"b", "c", "d"}, set[str]()


def agree(world: World, message: Message, expected: set[str]) -> None:
    """Traceflow and wire, and both are what the test says."""
    packet, frame = message(world)
    assert promised(world, packet) == expected
    assert heard(world, bytes(frame), expected) == expected


def test_arp_is_heard_where_a_traceflow_says(world: World) -> None:
    """A request by all, a reply by one; an Ethernet rule in keeps it from that VM, one out from everybody."""
    world.enforce()
    agree(world, arp_request, ALL)
    agree(world, arp_reply, {"c"})
    agree(world, arp_lie, ALL)
    services = {"services": ["/infra/services/ARP"]}
    with frames(
        world, drop("a", "c", direction="IN", scope=["/infra/domains/default/groups/vm-c"]) | services
    ):
        agree(world, arp_reply, NOBODY)
    with frames(world, drop("a", ANY, direction="OUT") | services):
        agree(world, arp_request, NOBODY)


def test_what_spoofguard_stops_is_stopped_in_both(world: World) -> None:
    """Another's address in ARP and in an advertisement; its own passes."""
    world.enforce()
    with typed(world, world.vm("a"), spoofguard="MANUAL"):
        agree(world, arp_lie, NOBODY)
        agree(world, arp_request, ALL)
        agree(world, advertisement_lie, NOBODY)
        agree(world, own_advertisement, {"c"})
        agree(world, solicitation, ALL)


def test_neighbour_discovery_is_heard_where_a_traceflow_says(world: World) -> None:
    """By the predefined rule; not where a rule above drops it."""
    world.enforce()
    agree(world, solicitation, ALL)
    agree(world, own_advertisement, {"c"})
    entry = {"resource_type": "ICMPTypeServiceEntry", "protocol": "ICMPv6", "icmp_type": 135}
    world.enforce(drop("a", ANY) | {"service_entries": [entry]})
    agree(world, solicitation, ALL)  # it comes from a link-local address, which the manager knows of nobody
    world.enforce(drop(ANY, ANY) | {"service_entries": [entry]})
    agree(world, solicitation, NOBODY)
    agree(world, own_advertisement, {"c"})


def test_dhcp_is_heard_by_marked_servers_as_a_traceflow_says(world: World) -> None:
    """Requests of both families by the one that is marked, and an answer of a VM that is not by nobody."""
    world.enforce()
    agree(world, dhcp_request, NOBODY)
    with typed(world, world.vm("c"), dhcp_server=True):
        agree(world, dhcp_request, {"c"})
        agree(world, dhcpv6_solicit, {"c"})
    agree(world, dhcp_reply, NOBODY)


def test_dns_multicast_and_other_frames_are_heard_where_a_traceflow_says(world: World) -> None:
    """Each needs a rule."""
    world.enforce()
    for message in (dns_query, mdns, other_frame):
        agree(world, message, NOBODY)
    world.enforce(allow("a", ANY, "udp/5353", "udp/53"))
    agree(world, dns_query, {"c"})
    agree(world, mdns, ALL)
    entry = {"resource_type": "EtherTypeServiceEntry", "ether_type": EXPERIMENTAL}
    with frames(world, allow("a", ANY) | {"service_entries": [entry]}):
        agree(world, other_frame, ALL)
